"""An agent's session: tools over the package's own client, refusals in one sentence, and a bundle that is only read."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters

from lfp.agents.reader import Reader
from lfp.agents.server import TOOLS, BundleServer, serve
from lfp.bundle.manifest import read_manifest
from lfp.errors import BundleError, ConfigError
from tests.conftest import ROOT

Talk = Callable[[Client], Awaitable[Any]]


def ask(server: BundleServer | StdioServerParameters, talk: Talk) -> Any:
    async def run() -> Any:
        async with Client(server, read_timeout_seconds=120) as client:
            return await talk(client)

    return anyio.run(run)


@pytest.fixture(scope="module")
def server(bundle: Path) -> Any:
    with Reader.open(bundle) as reader:
        yield BundleServer(reader)


def call(server: BundleServer, tool: str, /, **arguments: Any) -> dict[str, Any]:
    result = ask(server, lambda client: client.call_tool(tool, arguments))
    assert not result.is_error, result.content[0].text
    assert json.loads(result.content[0].text) == result.structured_content
    return result.structured_content


def refusal(server: BundleServer, name: str, arguments: dict[str, Any]) -> str:
    result = ask(server, lambda client: client.call_tool(name, arguments))
    assert result.is_error
    return result.content[0].text


def test_every_tool_says_what_it_answers_and_that_it_only_reads(server: BundleServer) -> None:
    tools = ask(server, lambda client: client.list_tools()).tools
    assert {tool.name for tool in tools} == set(TOOLS)
    for tool in tools:
        assert tool.description and tool.output_schema["type"] == "object" and tool.annotations.read_only_hint
        assert all("title" in each for each in tool.input_schema["properties"].values())


def test_the_report_has_the_rows_of_lfp_report(server: BundleServer, bundle: Path) -> None:
    import lfp
    from lfp.evaluation.results import report_as_json

    rows = report_as_json(lfp.report(bundle).rows)
    assert [question["answer"] for question in call(server, "summary")["questions"]] == [
        check.outcome for check in lfp.report(bundle).checks
    ]
    listed = {section["name"]: section["n_figures"] for section in call(server, "summary")["sections"]}
    assert listed == {name: len(of_section) for name, of_section in rows.items() if of_section}
    for section, count in listed.items():
        figures = call(server, "report", section=section, limit=1000)["figures"]
        assert len(figures) == count
        for place, (figure, row) in enumerate(zip(figures, rows[section], strict=True)):
            assert figure["row_id"] == f"report/{section}/{place}"
            for key in ("value", "ci_low", "ci_high", "null_high", "null_p", "n"):
                assert (figure[key] is None) == (key not in row)
                assert figure[key] == row.get(key) or figure[key] == pytest.approx(row[key], rel=1e-6)


def test_lists_page_and_cards_agree_with_the_tables(server: BundleServer) -> None:
    first, second = (call(server, "features", limit=3, offset=offset, sort="density") for offset in (0, 3))
    listed = [row["feature_id"] for page in (first, second) for row in page["features"]]
    sql = "SELECT feature_id FROM features ORDER BY density DESC, feature_id LIMIT 6"
    assert [[number] for number in listed] == call(server, "sql", query=sql)["rows"]
    card = call(server, "feature", feature_id=listed[0])
    assert card["row_id"] == f"features/{listed[0]}" and card["labels"] and card["figures"]
    places = call(server, "feature_examples", feature_id=listed[0], limit=3)
    for place in places["examples"]:
        text = call(server, "text", text_id=place["text_id"])
        assert place["before"] + place["token"] + place["after"] in text["text"]
        assert "".join(token["token"] for token in text["tokens"]) == text["text"]
    written = call(server, "continuations", limit=2, by_change=True)["continuations"]
    changes = [row["tuned_reward"] - row["base_reward"] for row in written]
    assert changes == sorted(changes, reverse=True) and written[0]["row_id"].startswith("completions/")
    word = call(server, "words", limit=1)["words"][0]
    assert call(server, "word", word=word["word"].upper())["row_id"] == word["row_id"]
    assert {finding["kind"] for finding in call(server, "findings")["findings"]} >= {"words paid more than stated"}
    assert {table["name"] for table in call(server, "tables")["tables"]} >= {"features", "results"}
    assert call(server, "tables", name="drift")["tables"][0]["columns"][0]["meaning"]


@pytest.mark.parametrize("of", ["estimate", "raw estimate", "implicit reward"])
def test_a_ledger_sums_to_what_the_bundle_states(server: BundleServer, of: str) -> None:
    known = "SELECT text_id FROM texts SEMI JOIN activations USING (text_id) WHERE credit_reward IS NOT NULL LIMIT 1"
    ((text_id,),) = call(server, "sql", query=known)["rows"]
    split = call(server, "ledger", text_id=text_id, of=of, limit=3)
    assert sum(part["value"] for part in split["parts"]) == pytest.approx(split["stated"], abs=1e-4)
    assert split["error"] < 1e-4 and len(split["parts"]) > 3


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("feature", {"feature_id": 10**9 - 1}, "there is no feature 999999999 in this bundle; it holds numbers 0 to"),
        ("feature", {"feature_id": "NaN"}, "feature_id: input should be a valid integer"),
        ("feature", {"feature_id": -1}, "greater than or equal to 0, not -1"),
        ("feature", {"feature": 3}, "takes no 'feature'; did you mean 'feature_id'?"),
        ("feature", {}, "feature_id: field required"),
        ("featurs", {}, "no such tool; did you mean 'features'?"),
        ("features", {"limit": 1_000_000}, "limit: input should be less than or equal to 1000, not 1000000"),
        ("features", {"sort": "wieght"}, "did you mean weight?"),
        ("features", {"layers": [float("inf")]}, "layers.0: input should be a"),
        ("report", {"section": "rewards"}, "did you mean reward?"),
        ("text", {"text_id": 2**31 - 1}, "there is no text"),
        ("ledger", {"text_id": 3, "of": "everything"}, "of: input should be 'estimate'"),
        ("word", {"word": "xyzzy"}, "there is no word “xyzzy” in this bundle"),
        ("word", {"word": ""}, "word: string should have at least 1 character"),
        ("words", {"sort": ""}, "choose one of word"),
        ("tables", {"name": "../secrets"}, "choose one of"),
        ("check_claim", {"claim": "x" * 5000}, "at most 2000 characters"),
    ],
)
def test_nonsense_gets_a_sentence_that_says_what_to_do(
    server: BundleServer, name: str, arguments: dict[str, Any], says: str
) -> None:
    text = refusal(server, name, arguments)
    assert says in text and "\n" not in text and "Traceback" not in text


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELECT * FROM read_text('/etc/passwd')", "files, folders and extensions are out of reach"),
        ("SELECT * FROM read_csv('{bundle}/manifest.json')", "out of reach"),
        ("SELECT * FROM glob('{bundle}/*')", "out of reach"),
        ("SELECT * FROM '/etc/passwd'", "does not exist"),
        ("SELECT * FROM frame", "does not exist"),
        ("COPY features TO '{bundle}/features.parquet'", "COPY cannot be run here"),
        ("ATTACH '/tmp/other.db'", "ATTACH cannot be run here"),
        ("INSTALL httpfs", "cannot be run here"),
        ("SET memory_limit = '64GB'", "cannot be run here"),
        ("CREATE TABLE copied AS SELECT 1", "CREATE cannot be run here"),
        ("WITH made AS (DELETE FROM feature_table RETURNING feature_id) FROM made", "sql: "),
        ("SELECT 1; SELECT 2", "SELECT, SELECT cannot be run here"),
        ("", "nothing cannot be run here"),
        ("SELEC 1", "syntax error"),
        ("SELECT wieght FROM feature_table", 'Candidate bindings: "weight"'),
        ("SELECT list(range) FROM range(100000000)", "needs more memory"),
        ("SELECT repeat('x', 2000000)", "the answer has 2.0 MB"),
        ("SELECT repeat('x', 3000000000)", "needs more memory"),
    ],
)
def test_sql_reads_the_tables_of_the_bundle_and_nothing_else(
    server: BundleServer, bundle: Path, query: str, says: str
) -> None:
    before = read_manifest(bundle), sorted(path.name for path in bundle.rglob("*"))
    text = refusal(server, "sql", {"query": query.replace("{bundle}", str(bundle))})
    assert says in text and "\n" not in text
    assert (read_manifest(bundle), sorted(path.name for path in bundle.rglob("*"))) == before


def test_sql_says_whether_there_are_more_rows_and_answers_in_json(server: BundleServer) -> None:
    found = call(server, "sql", query="SELECT 1 AS one, 'nan'::DOUBLE, now(), {'a': [1]}, '\\xff'::BLOB", limit=1)
    assert found["is_complete"] and found["columns"][0] == "one" and found["rows"][0][:2] == [1, None]
    assert not call(server, "sql", query="SELECT * FROM range(1000000000)", limit=2)["is_complete"]


def test_a_query_is_stopped_in_time(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lfp.agents import reader as reading

    monkeypatch.setattr(reading, "SECONDS", 0.3)
    with Reader.open(bundle) as reader:
        query = "SELECT count(*) FROM range(1000000) a, range(1000000) b"
        assert "took more than 0.3 s" in refusal(BundleServer(reader), "sql", {"query": query})
        query = "SELECT repeat(repeat('a', 1000000), 300) FROM range(100)"  # no interrupt reaches this
        refused = refusal(BundleServer(reader), "sql", {"query": query})
        assert "took more than 0.3 s" in refused or "needs more memory" in refused, "by which it is ended first"
        assert reader.sql("SELECT 1", limit=1).rows == [[1]]


def test_an_agent_talks_to_the_command_over_stdin_and_stdout(bundle: Path) -> None:
    async def talk(client: Client) -> tuple[str, str, bool]:
        summary = await client.call_tool("summary", {})
        wrong = await client.call_tool("feature", {"feature_id": 10**6})
        return client.server_info.name, summary.structured_content["title"], wrong.is_error

    parameters = StdioServerParameters(command=sys.executable, args=["-m", "precompute", "mcp", str(bundle)], cwd=ROOT)
    assert ask(parameters, talk) == ("lfp-explorer", read_manifest(bundle).title, True)


def test_without_the_package_one_sentence_names_the_line_that_installs_it(bundle: Path) -> None:
    code = (
        "import sys; sys.modules['mcp'] = None\n"
        f"sys.argv = ['lfp', 'mcp', {str(bundle)!r}]\n"
        "from precompute.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: lfp mcp needs the package mcp, which is not installed; run pip install 'lfp-explorer[mcp]'\n"
    )


def test_a_server_that_cannot_start_says_why(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nowhere"):
        serve(tmp_path / "nowhere", http=False, port=0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="choose another with --port"):
            serve(bundle, http=True, port=taken.getsockname()[1])
