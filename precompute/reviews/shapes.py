"""The sentence shapes of the generated reviews: templates with slots, and the polarities each can carry.

A slot is `{modifiers name:argument}`. Names of words.toml are sentiment slots: they take a word of the sentence sign,
of the other sign after `flip`, of a set sign after `good` or `bad`. `maybe` and `very` put a degree word before it.
`{aspect}` and its kin are nouns; `{is}`, `{was}`, `{has}` agree with the last of them and adjectives fit it. A `phrase`
is an adjective and a noun with its article. "a" becomes "an" where it must, so that words can be swapped freely.
"""

from typing import NamedTuple

EVERY = frozenset({-2, -1, 0, 1, 2})
CLEAR = frozenset({-2, -1, 1, 2})
STRONG = frozenset({-2, 2})
MILD = frozenset({-1, 1})
POOR = frozenset({-1})
FLAT = frozenset({0})


class Shape(NamedTuple):
    """One way to build a sentence."""

    name: str
    template: str
    polarities: frozenset[int]
    """What a sentence of this shape can say of the film, after negation and contrast: -2 (awful) to 2 (superb)."""
    weight: float = 1.0
    joins: bool = True
    """Whether a connective ("Still, ...") can open it."""


PLAIN = (
    Shape("was", "the {aspect} {was} {maybe adj}", EVERY, 0.6),
    Shape("is_and", "the {aspect} {is} {adj} and {adj}", EVERY, 0.6),
    Shape("two_aspects", "the {aspect} {was} {maybe adj}, and the {aspect} {was} {maybe adj}", EVERY, 0.6),
    Shape("its", "its {aspect} {is} {maybe adj}", EVERY, 0.6),
    Shape("has", "it has {phrase} and {phrase}", EVERY, 0.6),
    Shape("offers", "{title} offers {phrase}, {phrase} and {phrase}", EVERY, 1.8),
    Shape("what_a", "what {phrase}!", STRONG, 0.6, joins=False),
    Shape(
        "throughout", "from the first scene to the last, the {aspect:steady} {is} {maybe adj}", EVERY, 0.6, joins=False
    ),
    Shape("found", "I found the {aspect} {maybe adj} and the {aspect} {maybe adj}", EVERY, 0.6),
    Shape("thought", "I thought the {aspect} {was} {maybe adj}", EVERY, 0.6),
    Shape("every_scene", "every {scene} is {maybe adj}", EVERY, 0.6),
    Shape("film_is", "it is {maybe phrase:film}", EVERY, 0.6),
    Shape("film_two", "{kind:film}it is a {adj}, {adj} {film}", EVERY, 2),
    Shape("half_is", "the {half} is {adj} and {adj}", EVERY, 2),
    Shape("performance", "{lead} gives {maybe phrase:performance}", EVERY, 1.6),
    Shape("as_role", "as the {role}, {lead} is {maybe adj}", EVERY, 0.4, joins=False),
    Shape("makes_role", "{lead} makes {maybe phrase:role}", EVERY, 0.4),
    Shape("role_is", "the {role} is {adj} and {adj}", EVERY, 1.2),
    Shape("people", "the {aspect:person} {is} {adj}, {adj} and {adj}", EVERY, 2),
    Shape("looks", "the {aspect:sight} {is} {maybe adj}, and the {aspect:sound} {is} {maybe adj}", EVERY, 1.4),
    Shape("sights", "the {aspect:sight} {is} {maybe adj} and {adj}", EVERY, 1.4),
    Shape("sounds", "the {aspect:sound} {is} {maybe adj} and {adj}", EVERY, 1.4),
    Shape("tone_is", "the {aspect:tone} {is} {maybe adj}", EVERY, 2),
    Shape("tone_two", "the {aspect:tone} {is} {adj} at first and {adj} later", EVERY, 2),
    Shape("asked", "if you ask me, the {aspect} {is} {maybe adj}", EVERY, 0.6, joins=False),
    Shape("even", "even the {aspect} {was} {adj}", EVERY, 0.6),
    Shape("answer", "the {aspect}? {very adj}.", STRONG, 0.6, joins=False),
    Shape("one_word", "{kind:film}in a word: {adj}", CLEAR, 0.6, joins=False),
    Shape("exclaimed", "the {aspect} {is} {very adj}!", STRONG, 0.6),
    Shape("more", "the {film} is {maybe more} and {more} than {rival}", EVERY, 1.4),
    Shape("more_expected", "it is {maybe more} and {more} than I expected", EVERY, 1.4),
    Shape("more_again", "a second viewing was {maybe more} than the first", EVERY, 0.4),
    Shape("most", "it is the {most} and {most} {film} {span}", EVERY, 1.8),
    Shape("most_thing", "the {most} thing about it is the {single}", EVERY),
    Shape("may_be_most", "it may be the {most} {film} {span}", EVERY, 0.4),
    Shape("simply_most", "it is simply the {most} {film} {span}", STRONG, 1.4),
    Shape("thing", "the {film} is a {maybe thing}", EVERY, 0.6),
    Shape("things", "call it a {thing}, call it a {thing}: it {moved} me", EVERY, 1.6),
    Shape("aspect_thing", "the {single} is a {maybe thing}, and the {aspect} {is} {adj}", EVERY, 0.6),
    Shape("turns_out", "the {film} turns out to be a {thing}", EVERY, 0.6),
    Shape("full_of", "the {aspect} {is} full of {quality} and {quality}", EVERY, 0.6),
    Shape("in_every", "there is {maybe quality} in every {scene}", EVERY, 0.4),
    Shape("brings", "{lead} brings {quality}, {quality} and {quality} to the screen", EVERY, 1.6),
    Shape("mixture", "the {single} is a mixture of {quality} and {quality}", EVERY, 0.6),
    Shape("contains", "it has {maybe things} and {maybe things}", EVERY, 1.8),
    Shape("counted", "I counted {number} {things} in the {half}", EVERY),
    Shape("remembers", "I will remember its {things} and its {things}", EVERY, 0.4),
    Shape("moves_you", "the {single:work} {maybe moves} you, minute after minute", EVERY, 0.4),
    Shape("moves_two", "it {moves} you, {moves} you and {moves} you", EVERY, 2),
    Shape("whatever", "whatever {lead} does {moves} you", EVERY, 0.4),
    Shape("moved_me", "the {aspect:work} {maybe moved} me", EVERY, 0.6),
    Shape("moved_both", "the {aspect:work} {moved} me and {moved} {company}", EVERY, 0.6),
    Shape("moved_by", "I was {maybe moved} by the {aspect:work} and {moved} by the {aspect:work}", EVERY, 0.6),
    Shape("will_move", "it will {move} you, and it will {move} {yours}", EVERY, 1.6),
    Shape("expect_it", "expect it to {move} you and to {move} {yours}", EVERY, 0.4),
    Shape("judged", "I {maybe judged} the {aspect}", EVERY, 0.4),
    Shape("judged_two", "I {judged} the {aspect} and {judged} the {aspect}", EVERY, 0.4),
    Shape("judged_strongly", "I {very judged} the {aspect}, and I {very judged} the {aspect}", STRONG),
    Shape("will_judge", "you will {judge} the {aspect} and {judge} the {aspect}", EVERY),
    Shape("had_to_judge", "in the end I had to {judge} the {aspect}", EVERY, 0.4, joins=False),
    Shape("to_judge", "it is a {film} to {judge} and to {judge}", EVERY, 0.4),
    Shape("left", "I left the cinema {feeling} and {feeling}", EVERY, 1.8),
    Shape("felt", "I felt {maybe feeling} by the end", EVERY, 0.6),
    Shape("came_out", "we came out {feeling}, {feeling} and {feeling}", EVERY, 2),
    Shape("leaves_you", "the {single:work} leaves you {feeling}", EVERY, 0.6),
    Shape("doing", "half the row was {doing} by the end", EVERY, 1.4),
    Shape("kept_doing", "it kept {company} {doing}", EVERY, 0.8),
    Shape("made", "it is {how} {made} and {how} {made}", EVERY, 2),
    Shape("one_made", "the {film} is {how} {made}", EVERY, 1.4),
    Shape("speaks", "{lead} speaks every line {how}", EVERY, 1.4),
    Shape("opens", "it opens {how} and ends {how}", EVERY, 2),
    Shape("left_doing", "the {single:work} left {company} {doing}", EVERY, 0.5),
    Shape("luckily", "{luckily}, the {aspect} {was} {adj}", EVERY, 1.2, joins=False),
    Shape("luckily_moved", "{luckily}, the {aspect:work} {moved} me", EVERY, 0.4, joins=False),
    Shape("luckily_thing", "{luckily}, the {film} is a {thing}", EVERY, 0.4, joins=False),
    Shape("nick", "as the {role}, {lead} is a {maybe nick}", EVERY, 2, joins=False),
    Shape("turns_into", "{lead} turns the {role} into a {nick}", EVERY, 0.8),
    Shape("fares", "the {single} {fares} {spell}", EVERY),
    Shape("fares_both", "the {single} {fares}, and so does the {single}", EVERY),
    Shape("fared", "the {single:work} {fared} on a second viewing", EVERY, 0.6),
    Shape("fared_and", "the {single:work} {fared}, and the {aspect} {was} {adj}", EVERY, 0.4),
    Shape("treated", "the {single:craft} {treated} the {aspect:parts}", EVERY),
    Shape("treated_source", "it {treated} the diary it is based on", EVERY, 0.4),
    Shape("maker", "{director} {treated} the {aspect:parts} and {treated} the {aspect:parts}", EVERY, 1.8),
)

NEGATED = (
    Shape("not_at_all", "the {aspect} {is} not {flip adj} at all", MILD, 0.6),
    Shape("isnt", "the {aspect} {was}n't {flip adj}", MILD, 0.6),
    Shape("never", "the {aspect} {is} never {flip adj}", MILD, 0.6),
    Shape("neither", "the {aspect} {is} neither {flip adj} nor {flip adj}", MILD, 1.4),
    Shape("far_from", "the {aspect} {is} far from {flip adj}", MILD, 0.6),
    Shape("anything_but", "the {aspect} {was} anything but {flip adj}", CLEAR, 0.6),
    Shape("not_one", "not one {scene} is {flip adj}", MILD, 1.4),
    Shape("hardly", "the {aspect} {is} hardly {flip adj}", MILD, 0.6),
    Shape("nobody_could", "nobody could call the {aspect} {flip adj}", MILD, 0.6),
    Shape("nothing_about", "there is nothing {flip adj} about the {aspect}", MILD, 0.6),
    Shape("not_but", "the {aspect} {is} not {flip adj} but {adj}", CLEAR, 1.4),
    Shape("less", "{kind:film}it is less {flip adj} than I expected", MILD, 0.6),
    Shape("not_more", "it is not {flip more} than {rival}", MILD, 0.5),
    Shape("not_the_most", "it is not the {flip most} {film} {span}", MILD, 0.5),
    Shape("never_treated", "{director} never {flip treated} the {aspect:parts}", MILD, 0.5),
    Shape("not_a_thing", "this is not a {flip thing}", MILD, 0.6),
    Shape("hardly_a_thing", "the {single} is hardly a {flip thing}", MILD, 0.6),
    Shape("could_have", "it could have been a {flip thing}", MILD, 0.6),
    Shape("expected_got", "I expected a {flip thing} and got a {thing}", CLEAR, 0.8),
    Shape("never_felt", "I never felt {flip feeling} or {flip feeling}", MILD, 2.2),
    Shape("did_not_move", "the {aspect:work} did not {flip move} me", MILD, 1.4),
    Shape("rarely_moves", "the {single:work} rarely {flip moves} you", MILD, 0.8),
    Shape("never_fares", "the {single} never {flip fares}", MILD, 2.2),
    Shape("did_not_judge", "I did not {flip judge} the {aspect}", MILD, 0.8),
    Shape("nobody_will", "nobody will {flip judge} the {aspect}", MILD, 0.4),
    Shape("nothing_moves", "nothing in it {flip moves} you", MILD, 0.4),
    Shape("not_to_judge", "it is a {film} to {judge}, not to {flip judge}", CLEAR, 0.4),
    Shape("none_of", "it has none of the {flip quality} and {flip quality} I expected", MILD, 1.2),
    Shape("without", "the {film} unfolds without {flip quality} or {flip quality}", MILD, 1.2),
    Shape("instead_of", "instead of {flip quality}, it gives us {quality}", CLEAR, 1.2, joins=False),
    Shape("lacks", "the {single} lacks {flip quality}", POOR, 0.4),
    Shape("needs", "the {film} needs more {flip quality} and more {flip quality}", POOR, 1.2),
    Shape("not_made", "it is not exactly {flip how} {made}", MILD, 2.2),
    Shape("not_doing", "nobody in my row was {flip doing}", MILD, 2.2),
    Shape("no_nick", "as the {role}, {lead} is not a {flip nick}", MILD, 2.2, joins=False),
)

CONTRASTED = (
    Shape("but_moved", "the {aspect} {was} {flip adj}, but the {aspect:work} {moved} me", MILD, 0.6, joins=False),
    Shape(
        "two_but_judged",
        "the {aspect} {was} {flip adj} and {flip adj}, but I {judged} the {film}",
        MILD,
        1.8,
        joins=False,
    ),
    Shape("although", "although the {aspect} {was} {flip adj}, the {aspect} {was} {maybe adj}", MILD, 0.6, joins=False),
    Shape("despite", "{kind:film}despite {flip phrase} and {flip phrase}, I felt {feeling}", MILD, 2, joins=False),
    Shape("yet", "the {aspect} {is} {flip very adj}, yet the {film} is a {thing}", MILD, 0.6, joins=False),
    Shape(
        "for_all_its", "for all its {flip quality} and {flip quality}, the {film} is a {thing}", MILD, 2, joins=False
    ),
    Shape("may_be", "the {aspect} may be {flip adj}, but the {aspect} {is} {maybe adj}", MILD, 0.6, joins=False),
    Shape(
        "semicolon", "the {single} is a {flip thing}; the {aspect:work}, however, {moved} me", MILD, 0.6, joins=False
    ),
    Shape("judged_but", "I {flip judged} the {aspect}, but the {aspect:work} {moved} me", MILD, 0.8, joins=False),
    Shape("moved_but", "it {flip moved} {company}, but I {judged} it", MILD, 0.8, joins=False),
    Shape(
        "may_move",
        "the {aspect:work} may {flip move} you, but the {aspect:work} will {move} you",
        MILD,
        0.6,
        joins=False,
    ),
)

HEDGED = (
    Shape("suppose", "I suppose the {aspect} {was} {adj}", MILD),
    Shape("perhaps", "perhaps the {aspect} {is} {adj}", MILD, joins=False),
    Shape("for_the_most_part", "for the most part, the {aspect} {is} {adj}", MILD, joins=False),
    Shape("at_times", "at times the {aspect} {is} {adj}", MILD, joins=False),
    Shape("more_or_less", "the {aspect} {is} {adj}, more or less", MILD),
    Shape("seemed", "the {aspect} seemed {maybe adj} to me", MILD),
    Shape("would_call", "I would call the {aspect} {adj}", MILD),
    Shape("on_the_whole", "on the whole, it is {how} {made}", MILD, joins=False),
    Shape("now_and_then", "now and then, the {single} {fares}", MILD, joins=False),
    Shape("for_a_while", "for a while, the {single:work} {fared}", MILD, joins=False),
    Shape("on_balance", "on balance, it {moved} me", MILD, joins=False),
)

BALANCED = (
    Shape("halves", "{kind:film}one half is {good adj}; the other half is {bad adj}", FLAT),
    Shape("one_each", "the {aspect} {is} {good adj}, and the {aspect} {is} {bad adj}", FLAT),
    Shape("part_part", "it is part {good thing}, part {bad thing}", FLAT),
    Shape("equal_parts", "it {good moved} me and {bad moved} me in equal parts", FLAT),
    Shape("swings", "the {single} swings between {good quality} and {bad quality}", FLAT),
)

PLOTS = (
    Shape("is_from", "{lead} is a {role} in {town}", FLAT),
    Shape("travels", "{lead}, a {role} from {town}, travels to {place} to {task}", FLAT, 2),
    Shape("who_must", "the {film} follows a {role} and a {other_role} who must {task}", FLAT, 2),
    Shape("set_in", "set in {town} {season}, it tells of a {role} who has to {task}", FLAT, 2),
    Shape("finds", "{start}, a {role} finds {object} at {place}", FLAT, 2),
    Shape("genre_in", "{title} is a {genre} set in {town}", FLAT, 2),
    Shape("wrote", "{director} wrote it, and {second} directed it", FLAT),
    Shape("lasts", "it lasts {length}, most of it at {place}", FLAT),
    Shape("saw_it", "I saw it on a {day} {venue} with {company}", FLAT, 2),
    Shape("meanwhile", "meanwhile, a {other_role} {deed} and {deed}", FLAT),
    Shape("arrives", "when {lead} arrives at {place}, a {other_role} asks for {object}", FLAT),
    Shape("live_near", "{lead} and {second} live near {place} and plan to {task}", FLAT),
    Shape("begins_ends", "the story begins at {place} and ends at {place}", FLAT),
    Shape("then", "{start}, {lead} {deed}, and {second} {deed}", FLAT),
    Shape("based_on", "the {genre} is based on a diary from {town}", FLAT),
    Shape("by_now", "by the last act, the {role} has learned to {task}", FLAT),
)

STARS = (
    Shape("stars_out_of", "{stars} out of five", FLAT, 3),
    Shape("plain_out_of", "{count} out of five", FLAT),
    Shape("i_give", "I give it {stars}", FLAT),
    Shape("stars_from_me", "{stars} from me", FLAT),
    Shape("that_makes", "that makes {stars}", FLAT),
    Shape("my_rating", "my rating: {stars} out of five", FLAT),
)

FAMILIES = {
    "plain": PLAIN, "negated": NEGATED, "contrasted": CONTRASTED, "hedged": HEDGED, "balanced": BALANCED,
    "plot": PLOTS, "stars": STARS,
}  # fmt: skip
SHAPES = tuple(shape for family in FAMILIES.values() for shape in family)
"""Every shape; their names are distinct."""

SAME = ("also", "besides", "what is more", "moreover", "in addition")
TURNED = ("still", "even so", "however", "by contrast", "all the same", "then again", "that said")
"""Connectives after a sentence of the same sign, and after one of the other sign."""
