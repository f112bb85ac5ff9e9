import json

import pytest

from labkit import headless
from labkit.headless import evidence, notebooks
from labkit.headless.usage import UsageError


def test_find_all_lists_topic_notebooks_only():
    names = [notebook.name for notebook in headless.find_all()]
    assert names == ["apples/01_good", "apples/02_poor", "pears/03_errs"]


def test_a_notebook_says_what_a_reader_chooses_by():
    summary = headless.find("apples/01_good").summary()
    assert list(summary) == ["name", "title", "papers", "minutes", "parameters"]
    assert summary["title"] == "Good [title]"
    assert summary["papers"] == ["paper-one"] and summary["minutes"] == 0.5
    assert summary["parameters"][0] == {
        "name": "n",
        "type": "int",
        "default": 3,
        "help": "how many",
    }
    assert json.loads(json.dumps(summary)) == summary


def test_what_is_absent_is_empty():
    notebook = headless.find("pears/03_errs")
    assert (notebook.papers, notebook.minutes, notebook.parameters) == ([], None, [])


def test_presets_are_checked_as_parameters_are(tmp_path, write_notebook):
    def made(presets):
        path = write_notebook(
            tmp_path / "mine.ipynb",
            ("n: int = 1\nx: float = 1.0", "parameters"),
            metadata={"labkit": {"presets": presets}},
        )
        return headless.find(str(path))

    notebook = made({"full": {"n": 30, "x": 2}, "tiny": {}})
    assert notebook.preset("full") == {"n": 30, "x": 2.0} and notebook.preset("tiny") == {}
    with pytest.raises(UsageError, match="unknown preset 'ful': did you mean full"):
        notebook.preset("ful")
    with pytest.raises(UsageError, match="presets: unknown parameter 'm'"):
        made({"full": {"m": 30}})
    with pytest.raises(UsageError, match=r"presets: parameter n='many' is refused"):
        made({"full": {"n": "many"}})
    with pytest.raises(UsageError, match="has no presets"):
        made({}).preset("full")


@pytest.mark.parametrize(
    "wrong, hint", [("01_good", "apples/01_good"), ("apples/01_god", "apples/01_good"), ("", "")]
)
def test_an_unknown_name_brings_the_nearest(wrong, hint):
    with pytest.raises(UsageError, match=f"unknown notebook '{wrong}'.*{hint}"):
        headless.find(wrong)


def test_a_path_names_a_notebook_of_ones_own(tmp_path, write_notebook):
    path = write_notebook(tmp_path / "mine.ipynb", "print(1)", ("n: int = 1", "parameters"))
    notebook = headless.find(str(path))
    assert (notebook.name, notebook.title, notebook.papers) == ("mine", "mine", [])
    assert [p.name for p in notebook.parameters] == ["n"]


def test_a_path_into_the_suite_names_the_suites_notebook(suite):
    notebook = headless.find(str(suite / "apples" / "01_good.ipynb"))
    assert notebook == headless.find("apples/01_good") and notebook.papers


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"nbformat": 3, "cells": []}'])
def test_a_file_that_is_no_notebook_is_refused(tmp_path, text):
    (tmp_path / "no.ipynb").write_text(text)
    with pytest.raises(UsageError, match=r"no\.ipynb"):
        notebooks.load(tmp_path / "no.ipynb")


# ------------------------------------------------------------------ evidence


def notebook_of(*outputs_of_cells):
    cells = [
        {"cell_type": "code", "source": [f"# c{i}\n", "x"], "metadata": {}, "outputs": outputs}
        for i, outputs in enumerate(outputs_of_cells, 1)
    ]
    return {"cells": cells, "metadata": {}}


def claim_output(value, holds, statement="s"):
    data = {"paper": "p", "statement": statement, "value": value, "at_least": None}
    data |= {"at_most": 1.0, "unit": "", "holds": holds}
    return {"output_type": "display_data", "data": {"application/vnd.labkit.claim+json": data}}


def error_output(name="ValueError", text="bad"):
    return {
        "output_type": "error",
        "ename": name,
        "evalue": text,
        "traceback": ["\x1b[31mred\x1b[0m"],
    }


def test_a_later_claim_that_holds_hides_no_earlier_one_that_does_not():
    made = evidence.claims(
        notebook_of([claim_output(2.0, False)], [claim_output(0.5, True), claim_output(0.5, True)])
    )
    assert [(c.value, c.holds) for c in made] == [(2.0, False), (0.5, True)]
    assert evidence.missing(["p", "q"], made) == ["q"]


def test_a_failure_tells_the_cell_as_the_author_counts():
    executed = notebook_of([], [], [error_output()])
    executed["cells"][0]["metadata"]["tags"] = ["papermill-error-cell-tag"]
    failure = evidence.failure(executed)
    assert (failure.cell, failure.line, failure.name) == (2, "c3", "ValueError")
    assert failure.traceback == ["red"]


def test_leaving_with_code_zero_is_no_failure():
    assert evidence.failure(notebook_of([error_output("SystemExit", "0")])) is None
    assert evidence.failure(notebook_of([error_output("SystemExit", "1")])) is not None


def test_an_error_within_a_widget_is_a_failure():
    executed = notebook_of([])
    state = {"id": {"state": {"outputs": [error_output()]}}}
    executed["metadata"]["widgets"] = {evidence.WIDGET_STATE: {"state": state}}
    failure = evidence.failure(executed)
    assert failure.cell is None and failure.where == "a widget"


def test_survey_knows_the_four_states(suite, tmp_path, monkeypatch):
    assert {row["id"]: row["status"] for row in evidence.survey(evidence.pages())} == {
        "paper-one": "no claims",
        "paper-two": "no claims",
        "paper-silent": "no claims",
        "paper-three": "planned",
    }
    made = notebook_of([claim_output(0.5, True)])
    made["cells"][0]["outputs"].append(claim_output(2.0, False, "t"))
    made["cells"][0]["outputs"][1]["data"]["application/vnd.labkit.claim+json"]["paper"] = "q"
    (tmp_path / "t").mkdir()
    (tmp_path / "t/01_a.ipynb").write_text(json.dumps(made | {"nbformat": 4}))
    (tmp_path / "atlas.yaml").write_text(
        "papers:\n"
        "- {id: p, title: P, topic: t, notebook: t/01_a}\n"
        "- {id: q, title: Q, topic: t, notebook: t/01_a}\n"
        "- {id: r, title: R, topic: t, notebook: t/02_not_there}\n"
    )
    monkeypatch.setenv("LABKIT_NOTEBOOKS", str(tmp_path))
    assert [row["status"] for row in evidence.survey(evidence.pages())] == [
        "holds",
        "fails",
        "planned",
    ]
