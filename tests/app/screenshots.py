"""Pictures of every page, wide and narrow, light and dark.

Run: python -m tests.app.screenshots OUT_DIR [--bundle DIR [DIR ...]]. Without a bundle two synthetic ones are made.
"""

import argparse
import os
import tempfile
from pathlib import Path

from lfp.testing.synthetic import make_bundle
from tests.app.journeys import JOURNEYS, journey_bundles
from tests.app.serving import browser, explorer, settle

VIEWS = {
    "overview": "",
    "accuracy": "accuracy?word=joyful",
    "accuracy_texts": "accuracy?word_axes=estimate+against+true&tau_target=activation+differences"
    "&gap_list=texts%3A+true+against+rating&text_colour=rating",
    "validation": "validation",
    "features": "features",
    "features_filtered": "features?related=yes&sign=negative&sort=weight&order=ascending",
    "features_area": "features?area=0,0;0.2,0;0.2,0.2;0,0.2&sort=weight",
    "features_preset": "features?related=no&null=beats&standing=first&standing=10+%25&map_colour=drifted_contribution",
    "features_meaning": "features?find=the+food+was+cold&find_by=meaning&sort=Best+match",
    "features_token": "features?find=token%3Agreat&sort=Best+match",
    "features_sentence": "features?find=The+food+was+great+but+the+waiter+was+rude&find_by=sentence&sort=Best+match",
    "feature": "feature",
    "feature_walked": "feature?feature=1253&walk=null%3Dbeats%26sort%3Dweight",
    "feature_interval": "feature?examples=2&activation_values=true",
    "inputs": "inputs?words=film",
    "inputs_numbers": "inputs?token_values=true",
    "inputs_watched": "inputs?watch=182",
    "inputs_raw": "inputs?account=raw+estimate%2C+with+what+is+missed&by=rating+gap&rated_from=4.0",
    "inputs_implicit": "inputs?texts=with+a+ledger&text=1009&account=implicit+reward",
    "inputs_same_position": "inputs?texts=with+a+ledger&text=1009&account=implicit+reward%2C+same+position",
    "inputs_average": "inputs?account=against+the+average+text&every_part=true",
    "pairs": "pairs",
    "disagreements": "disagreements",
    "disagreements_words": "disagreements?queue=implicit+against+true&things=words",
    "disagreements_rating": "disagreements?queue=true+against+rating&side=over",
    "drift": "drift",
    "drift_density": "drift?plane=density&became=gone",
    "runs": "runs",
    "try_it": "try_it?typed=The+plot+was+dull%2C+but+the+acting+was+a+wonderful+surprise",
    "try_it_scaled": "try_it?typed=The+plot+was+dull%2C+but+the+acting+was+a+wonderful+surprise&tried_values=true"
    "&scales=1446%3A0%2C472%3A2.5&try_tokens=24&seed=3",
    "about": "about",
    "queue": "queue",
    "queue_results": "queue?part=Results",
    "queue_files": "queue?part=Lists+and+files",
    "no_feature": "feature?feature=999999",
}
WIDTHS = {"wide": 1400, "narrow": 390}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--bundle", type=Path, nargs="+", help="the first is shown, the second compared with it")
    parser.add_argument("--only", nargs="*", help="names of views; all by default")
    parser.add_argument("--themes", nargs="*", default=["light", "dark"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundles = options.bundle or [
            make_bundle(Path(folder) / name, n_features=400, n_texts=300, n_layers=4, seed=seed)
            for seed, name in enumerate(("reviews", "reviews-again"))
        ]
        shoot(options.out, bundles, only=options.only or list(VIEWS), themes=options.themes)
        if not options.only and not options.bundle:
            shoot_journeys(options.out, Path(folder) / "journeys")


def shoot(out, bundles, *, only, themes):
    out.mkdir(parents=True, exist_ok=True)
    with explorer(*bundles) as address, browser() as chromium:
        for theme in themes:
            for size, width in WIDTHS.items():
                context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
                page = context.new_page()
                for name in only:
                    page.goto(f"{address}/{VIEWS[name]}")
                    settle(page)
                    whole_height(page, width)
                    page.screenshot(path=out / f"{name}-{size}-{theme}.png")
                context.close()


def shoot_journeys(out, folder):
    """Where each journey that matters arrives."""
    folder.mkdir()
    os.environ["LFP_AUDIT_URL"] = f"sqlite:///{folder / 'audits.sqlite'}"
    with explorer(*journey_bundles(folder)) as address, browser() as chromium:
        for journey in JOURNEYS:
            context = chromium.new_context(viewport={"width": WIDTHS["wide"], "height": 1200})
            page = context.new_page()
            journey(page, address)
            page.screenshot(path=out / f"journey-{journey.__name__}.png")
            context.close()


def whole_height(page, width):
    """Grows the window to the page's content, since the app scrolls inside itself."""
    page.wait_for_timeout(500)
    height = page.evaluate("document.querySelector('[data-testid=\"stMainBlockContainer\"]').scrollHeight + 60")
    page.set_viewport_size({"width": width, "height": min(max(height, 700), 5000)})
    page.wait_for_timeout(500)


if __name__ == "__main__":
    main()
