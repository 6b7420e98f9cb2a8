"""The recipe file: defaults, refusals with a way out, overrides, round trips."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from shortlist.data import Feature, Schema, Split
from shortlist.errors import RecipeError
from shortlist.models.options import RETRIEVAL_KINDS, Head
from shortlist.models.scorers.storage import KINDS, SCORERS
from shortlist.options import Options
from shortlist.recipe import (
    EvaluationSection,
    LogSection,
    OutputSection,
    RankerSection,
    Recipe,
    RetrievalSection,
    ServingSection,
    build_recipe,
    load_recipe,
)

ROOT = Path(__file__).parents[1]
MINIMAL = """
[log]
events = "log.csv"

[columns]
user_id = "u"
item_id = "i"
"""


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "shortlist.toml"
    path.write_text(MINIMAL)
    return path


def raw(**sections: Any) -> dict[str, Any]:
    columns = {"user_id": "u", "item_id": "i"}
    return {"log": {"events": "log.csv"}, "columns": columns, **sections}


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(RecipeError, match="The recipe cannot be used") as caught:
        build_recipe(values, file="shortlist.toml")
    assert caught.value.code == "recipe-invalid"
    assert caught.value.file == "shortlist.toml"
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_minimal_recipe_has_the_defaults(recipe_file):
    recipe = load_recipe(recipe_file)
    assert recipe.columns == Schema(user_id="u", item_id="i")
    assert (
        recipe.split == Split() == Split(kind="last_fraction", test=0.2, validation=0.1)
    )
    assert recipe.retrieval == RetrievalSection()
    assert recipe.ranker == RankerSection()
    assert recipe.evaluation == EvaluationSection()
    assert recipe.output == OutputSection()
    assert (recipe.version, recipe.name, recipe.seed) == (1, "recommender", 0)


def test_every_section_is_read(recipe_file):
    recipe_file.write_text(
        """
        version = 1
        name = "shop"
        seed = 7
        [log]
        events = ["a.csv", "b.csv"]
        items = "items.csv"
        items_id = "sku"
        test_events = "test.csv"
        [columns]
        user_id = "u"
        item_id = "i"
        label = "stars"
        label_kind = "explicit"
        positive_from = 4
        [[columns.features]]
        name = "genre"
        owner = "item"
        kind = "multi_valued"
        separator = ","
        [split]
        kind = "files"
        validation = 0.25
        [retrieval]
        hidden_units = [128, 64]
        [ranker]
        enabled = false
        objective = "explicit"
        weights = [0.5]
        [evaluation]
        ks = [1]
        [output]
        bundle = "../bundle"
        """
    )
    recipe = load_recipe(recipe_file)
    assert recipe.log.events == ["a.csv", "b.csv"]
    assert recipe.log.items_id == "sku"
    assert recipe.columns.positive_from == 4.0
    assert recipe.columns.features == (
        Feature(name="genre", owner="item", kind="multi_valued", separator=","),
    )
    assert recipe.split == Split(kind="files", validation=0.25)
    assert recipe.retrieval.hidden_units == [128, 64]
    assert not recipe.ranker.enabled and recipe.ranker.weights == [0.5]
    assert (recipe.evaluation.ks, recipe.output.bundle) == ([1], "../bundle")
    assert build_recipe(recipe.to_builtins()) == recipe
    # What a run stores is JSON.
    assert build_recipe(json.loads(json.dumps(recipe.to_builtins()))) == recipe


@pytest.mark.parametrize(
    ("values", "name", "meant"),
    [
        (raw(retreival={}), "retreival", "retrieval"),
        (raw(seeed=1), "seeed", "seed"),
        (raw(retrieval={"embeding_dim": 8}), "retrieval.embeding_dim", "embedding_dim"),
        (raw(ranker={"objektive": "binary"}), "ranker.objektive", "objective"),
        (raw(evaluation={"k": [1]}), "evaluation.k", "ks"),
        (raw(split={"tests": 0.2}), "split.tests", "test"),
        (raw(output={"bundel": "b"}), "output.bundel", "bundle"),
        ({**raw(), "log": {"events": "a", "item": "b"}}, "log.item", "items"),
    ],
)
def test_unknown_field_is_answered_with_the_closest_known_one(values, name, meant):
    text = refusal(values)
    assert f"`{name}` is not a field. Did you mean '{meant}'?" in text
    # The message is enough: an installed package has no docs.
    section, _, field = name.rpartition(".")
    of = f"[{section}]" if section else "a recipe"
    fields = re.search(rf"The fields of {re.escape(of)} are ([^.]*)\.", text)
    assert fields is not None and meant in fields[1].split(", ")
    assert field not in fields[1].split(", ") and "docs/" not in text


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            raw(retrieval={"kind": "two_towers"}),
            "`retrieval.kind`: must be one of two_tower, als, burst_als, ease,"
            " factorization, item_knn, popularity, blend, received 'two_towers'."
            " Did you mean 'two_tower'?",
        ),
        (raw(retrieval={"kind": "zzz"}), "popularity, blend, received 'zzz'."),
        (
            raw(training={"optimizer": "adm"}),
            "rowwise_adagrad, sgd, received 'adm'. Did you mean 'adam'?",
        ),
        (
            raw(evaluation={"metrics": ["ndgc"]}),
            "popularity_lift, personalization, received ['ndgc']. Did you mean 'ndcg'?",
        ),
        (raw(columns={"usr_id": "u", "item_id": "i"}), "The fields are user_id, "),
    ],
)
def test_refusals_are_sentences_without_python(values, said):
    text = refusal(values)
    assert said in text
    assert "('" not in text and ".," not in text and "?," not in text


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"usr_id": "u", "item_id": "i"}, "Did you mean 'user_id'"),
        ({"user_id": "u", "item_id": "i", "tittle": "t"}, "Did you mean 'title'"),
        ({"item_id": "i"}, "missing required field `user_id`"),
        (
            {
                "user_id": "u",
                "item_id": "i",
                "features": [{"name": "g", "owner": "item", "kinds": "numeric"}],
            },
            "Did you mean 'kind'",
        ),
        (
            {
                "user_id": "u",
                "item_id": "i",
                "features": [{"name": "g", "owner": "shop", "kind": "numeric"}],
            },
            "'shop' - at `$.features[0].owner`",
        ),
        ({"user_id": "u", "item_id": "u"}, "must be different columns"),
        ({"user_id": "u", "item_id": "i", "wieght": "log"}, "Did you mean 'weight'"),
        (
            {
                "user_id": "u",
                "item_id": "i",
                "features": [
                    {"name": "g", "owner": "item", "kind": "numeric", "oov_bucket": 2}
                ],
            },
            "Did you mean 'oov_buckets'",
        ),
        (
            {
                "user_id": "u",
                "item_id": "i",
                "features": [
                    {"name": "g", "owner": "item", "kind": "numeric", "oov_buckets": 2}
                ],
            },
            "['oov_buckets'] belong to categorical and multi_valued features",
        ),
        ({"user_id": 5, "item_id": "i"}, "Expected `str`, got `int`"),
    ],
)
def test_columns_are_checked_as_a_schema(columns, words):
    assert words in refusal({**raw(), "columns": columns})


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("retrieval", "epochs", "many"),
        ("retrieval", "epochs", 0),
        ("retrieval", "embedding_dim", 1.5),
        ("retrieval", "hidden_units", [64, 0]),
        ("retrieval", "hidden_units", 64),
        ("retrieval", "history_length", -1),
        ("retrieval", "dropout", 1.0),
        ("retrieval", "dropout", float("nan")),
        ("retrieval", "temperature", 0.0),
        ("retrieval", "temperature", float("inf")),
        ("retrieval", "learning_rate", -1e-3),
        ("retrieval", "learning_rate", 0.0),
        ("ranker", "learning_rate", 0.0),
        ("retrieval", "similarity", "perhaps"),
        ("ranker", "objective", "pairwise"),
        ("ranker", "candidates", 0),
        ("ranker", "weights", []),
        ("ranker", "weights", [-1.0]),
        ("ranker", "weights", [float("inf")]),
        ("ranker", "weights", [float("nan")]),
        ("evaluation", "ks", []),
        ("evaluation", "ks", [0]),
        ("evaluation", "resamples", 0),
        ("output", "run", 5),
        ("split", "test", "some"),
    ],
)
def test_value_that_cannot_be_used_is_named(section, field, value):
    text = refusal(raw(**{section: {field: value}}))
    assert f"`{section}.{field}" in text
    received = value[-1] if isinstance(value, list) and value else value
    assert f"received {received!r}" in text


def test_all_problems_are_told_at_once():
    text = refusal(raw(seed=-1, retrieval={"epochs": 0}, version=0))
    assert "`seed`" in text and "`retrieval.epochs`" in text
    assert "`version` must be 1, received 0" in text


def test_a_recipe_of_a_later_version_says_so():
    with pytest.raises(RecipeError, match="at most 1. Received: 2") as caught:
        build_recipe(raw(version=2, fields_of_tomorrow=True))
    assert caught.value.code == "recipe-newer"


def test_an_unknown_optimizer_is_told_with_the_closest_one():
    text = refusal(raw(training={"optimizer": "adagard"}))
    assert "`training.optimizer`: must be one of adagrad, adam" in text
    assert "Did you mean 'adagrad'?" in text


@pytest.mark.parametrize("stage", ["retrieval", "ranker"])
def test_a_rate_of_ten_is_refused_but_for_sgd(stage):
    wild = {"learning_rate": 10.0}
    text = refusal(raw(**{stage: wild}))
    assert f"{stage}.learning_rate must be at most 1 with optimizer = 'adam'" in text
    assert "received 10.0" in text
    assert build_recipe(raw(**{stage: wild}, training={"optimizer": "sgd"}))
    assert build_recipe(raw(**{stage: {"learning_rate": 1.0}}))


def test_a_rate_that_nothing_is_trained_with_is_not_looked_at():
    unused = {"kind": "ease", "learning_rate": 10.0}
    off = {"enabled": False, "learning_rate": 10.0}
    assert build_recipe(raw(retrieval=unused, ranker=off))


def test_unknown_losses_and_metrics_are_told_with_the_closest_one():
    text = refusal(raw(retrieval={"loss": "sampled_sofmax"}))
    assert "`retrieval.loss`" in text and "Did you mean 'sampled_softmax'?" in text
    text = refusal(raw(evaluation={"metrics": ["reccall"]}))
    assert "Did you mean 'recall'?" in text


def test_a_least_gain_needs_a_price():
    text = refusal(raw(training={"min_gain_per_cost": 0.1}))
    assert "needs a price_per_hour above 0" in text


def test_missing_sections_are_named():
    text = refusal({})
    assert "`log`: Field required" in text and "`columns`: Field required" in text


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ({"kind": "last-n"}, "'last_n'"),
        ({"test": 1.5}, "a share from 0 to below 1"),
        ({"kind": "last_n", "test": 0.5}, "a number of events"),
        ({"kind": "time_cut", "test_from": "soon"}, "must be an ISO date or time"),
        ({"test_from": "2024-01-01"}, "belong to kind = 'time_cut'"),
    ],
)
def test_split_is_checked_before_any_work(split, words):
    text = refusal(raw(split=split))
    assert "`split" in text and words in text


def test_listwise_ranker_needs_negatives_while_it_is_enabled():
    listwise = {"objective": "listwise", "negatives": 0}
    assert "needs negatives of at least 1" in refusal(raw(ranker=listwise))
    others = ({**listwise, "enabled": False}, {"objective": "explicit"}, {})
    for ranker in others:
        assert (
            build_recipe(raw(ranker={"negatives": 0, **ranker})).ranker.negatives == 0
        )


HEADS = {"rating": {"objective": "explicit"}, "click": {"objective": "binary"}}


@pytest.mark.parametrize(
    ("ranker", "words"),
    [
        ({"interaction": "deep_fm"}, "Did you mean 'deepfm'?"),
        ({"objective": "list"}, "Did you mean 'listwise'?"),
        ({"kind": "multitask"}, "Did you mean 'multi_task'?"),
        ({"kind": "multi_task"}, "go together"),
        ({"heads": HEADS}, "go together"),
        ({"interaction": "dcn", "heads": HEADS}, "no interaction but"),
        ({"score": "clck", "heads": HEADS}, "Did you mean 'click'?"),
        ({"score": {"rate": 1.0}, "heads": HEADS}, "received 'rate'"),
        ({"heads": {"a": {"objective": "binay"}}}, "Did you mean 'binary'?"),
        ({"heads": {"a": {"objective": "binary", "wait": 2}}}, "'weight'?"),
        ({"heads": {"a": {"objective": "binary", "label": "take"}}}, "'taken'?"),
        (
            {"negatives": 0, "heads": {"a": {"objective": "binary", "label": "taken"}}},
            "head 'a' needs negatives",
        ),
        (
            {"heads": {"a": {"objective": "listwise", "label": "positive"}}},
            "head 'a' of objective = 'listwise' needs label = 'taken'",
        ),
        ({"table_l2": -1.0}, "ranker.table_l2"),
        ({"low_rank_dim": 0}, "ranker.low_rank_dim"),
    ],
)
def test_rankers_that_cannot_be_are_refused(ranker, words):
    several = words != "go together" and "heads" in ranker
    kind = {"kind": "multi_task"} if several else {}
    assert words in refusal(raw(ranker={**kind, **ranker}))


def test_a_head_learns_the_label_of_its_objective_unless_told():
    heads = {**HEADS, "list": {"objective": "listwise"}}
    ranker = build_recipe(raw(ranker={"kind": "multi_task", "heads": heads})).ranker
    assert ranker.labels() == {
        "rating": ("explicit", "label"),
        "click": ("binary", "positive"),
        "list": ("listwise", "taken"),
    }
    assert ranker.negatives_drawn() == 4
    assert (
        build_recipe(
            raw(ranker={"kind": "multi_task", "heads": HEADS})
        ).ranker.negatives_drawn()
        == 0
    )
    assert build_recipe(raw()).ranker.labels() == {"": ("binary", "taken")}
    unpaired = build_recipe(raw(ranker={"negatives": 0})).ranker
    assert unpaired.labels() == {"": ("binary", "positive")}


def test_recipe_cannot_be_changed_afterwards(recipe_file):
    recipe = load_recipe(recipe_file)
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 5


# --- the file ---------------------------------------------------------------------


def test_missing_file_says_how_to_write_one(tmp_path):
    for path in (tmp_path / "shortlist.toml", tmp_path):
        with pytest.raises(RecipeError, match="shortlist init LOG") as caught:
            load_recipe(path)
        assert caught.value.code == "recipe-missing"
        assert caught.value.file == str(path)


@pytest.mark.parametrize(
    "text", [b"[log", b"seed = 1\nseed = 2", b"name = '\xff'", b"a b"]
)
def test_file_that_is_no_toml_is_refused(recipe_file, text):
    recipe_file.write_bytes(text)
    with pytest.raises(RecipeError, match="must be valid TOML in UTF-8") as caught:
        load_recipe(recipe_file)
    assert caught.value.code == "recipe-syntax"
    assert caught.value.file == str(recipe_file)


def test_byte_order_mark_of_some_editors_is_skipped(recipe_file):
    recipe_file.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert load_recipe(recipe_file).columns.user_id == "u"


# --- overrides --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "read"),
    [
        ("seed=7", lambda r: r.seed == 7),
        ("name=shop", lambda r: r.name == "shop"),
        ('name="a = b"', lambda r: r.name == "a = b"),
        ("name=a = b", lambda r: r.name == "a = b"),
        ("name=007", lambda r: r.name == "007"),
        ("retrieval.epochs=3", lambda r: r.retrieval.epochs == 3),
        (" retrieval.epochs = 3 ", lambda r: r.retrieval.epochs == 3),
        ("retrieval.hidden_units=[8, 4]", lambda r: r.retrieval.hidden_units == [8, 4]),
        ("retrieval.similarity=dot", lambda r: r.retrieval.similarity == "dot"),
        ("retrieval.learning_rate=1e-4", lambda r: r.retrieval.learning_rate == 1e-4),
        ("split.kind=random", lambda r: r.split.kind == "random"),
        ("log.events=other.csv", lambda r: r.log.events == "other.csv"),
        ('log.events=["a", "b"]', lambda r: r.log.events == ["a", "b"]),
        ("columns.label=stars", lambda r: r.columns.label == "stars"),
        ("output.run=runs/é", lambda r: r.output.run == "runs/é"),
    ],
)
def test_setting_overrides_a_field(recipe_file, setting, read):
    assert not read(load_recipe(recipe_file))
    assert read(load_recipe(recipe_file, [setting]))
    assert not read(load_recipe(recipe_file)), "the file itself is not changed"


@pytest.mark.parametrize(
    "moment", ["2024-05-31", "2024-05-31T18:00:00Z", '"2024-05-31"']
)
def test_moments_may_be_set_without_quotes(recipe_file, moment):
    settings = ["split.kind=time_cut", f"split.test_from={moment}"]
    assert load_recipe(recipe_file, settings).split.test_from == moment.strip('"')


def test_later_settings_win(recipe_file):
    assert load_recipe(recipe_file, ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize("setting", ["seed", "=3", "", "log.events.path=x", "seed.x=1"])
def test_setting_that_is_no_section_and_field_is_refused(recipe_file, setting):
    base = ["seed=1"]
    with pytest.raises(RecipeError, match="--set takes section.field=value") as caught:
        load_recipe(recipe_file, [*base, setting])
    assert caught.value.code == "setting-invalid"
    assert repr(setting) in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (
            "retrieval.epoch=3",
            "`retrieval.epoch` is not a field. Did you mean 'epochs'?",
        ),
        ("retreival.epochs=3", "`retreival` is not a field. Did you mean 'retrieval'?"),
        ("retrieval.epochs=zero", "received 'zero'"),
    ],
)
def test_setting_is_checked_like_the_file(recipe_file, setting, words):
    with pytest.raises(RecipeError, match="The recipe cannot be used") as caught:
        load_recipe(recipe_file, [setting])
    assert caught.value.code == "recipe-invalid"
    assert words in str(caught.value)


# --- the documentation ------------------------------------------------------------

SECTIONS: dict[str, Any] = {
    "log": LogSection,
    "retrieval": RetrievalSection,
    **{
        f"retrieval.{name}": field.annotation
        for name, field in RetrievalSection.model_fields.items()
        if isinstance(field.default, Options)
    },
    "ranker": RankerSection,
    "evaluation": EvaluationSection,
    "serving": ServingSection,
    "output": OutputSection,
}


def documented(section: str) -> str:
    """The text of `docs/recipe.md` about a section."""
    text = (ROOT / "docs" / "recipe.md").read_text()
    blocks = re.split(r"^## ", text, flags=re.MULTILINE)
    (block,) = (b for b in blocks if f"`[{section}]`" in b.partition("\n")[0])
    return " ".join(block.split())


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_and_default_is_documented(section):
    text = documented(section)
    for name, field in SECTIONS[section].model_fields.items():
        assert f"`{name}`" in text, name
        if field.is_required() or field.default is None:
            continue
        if isinstance(field.default, Options):
            continue
        shown = json.dumps(field.default).strip('"')
        assert re.search(rf"(?<![\w.]){re.escape(shown)}(?![\w.]\d)", text), name


def test_the_tables_of_options_are_those_of_the_structures():
    path = ROOT / "scripts" / "option_tables.py"
    spec = importlib.util.spec_from_file_location("option_tables", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = script.PAGE.read_text()
    assert page.count("<!-- options: ") == len(script.sections()) == 10
    assert script.rendered(page) == page, "run python scripts/option_tables.py"


@pytest.mark.parametrize("section", [RetrievalSection, RankerSection, Head])
def test_every_option_has_a_note_on_one_line(section):
    notes = section.notes()
    tables = {
        name
        for name, field in section.model_fields.items()
        if isinstance(field.default, Options)
    }
    assert set(notes) == set(section.model_fields) - tables
    assert max(map(len, notes.values())) <= 90


def test_every_column_role_and_split_field_is_documented():
    for name in Schema.__struct_fields__:
        shown = "[[columns.features]]" if name == "features" else name
        assert f"`{shown}`" in documented("columns"), name
    for name in Feature.__struct_fields__:
        assert f"`{name}`" in documented("columns"), name
    for name in (field.name for field in dataclasses.fields(Split)):
        assert f"`{name}`" in documented("split"), name


def test_every_top_level_field_is_documented():
    text = (ROOT / "docs" / "recipe.md").read_text()
    for name in Recipe.model_fields:
        assert f"`{name}`" in text or f"`[{name}]`" in text, name


@pytest.mark.parametrize(
    "setting",
    [
        "retrieval.epochs=true",
        'retrieval.epochs="3"',
        'retrieval.dropout="0.1"',
        "retrieval.similarity=1",
        "ranker.enabled='no'",
        "seed=4294967296",
    ],
)
def test_values_of_another_type_are_not_converted(tmp_path, setting):
    path = tmp_path / "shortlist.toml"
    path.write_text('[log]\nevents = "x"\n[columns]\nuser_id = "u"\nitem_id = "i"\n')
    field = setting.partition("=")[0]
    with pytest.raises(RecipeError, match=re.escape(f"`{field}`")) as caught:
        load_recipe(path, [setting])
    assert caught.value.code == "recipe-invalid"


def test_lists_longer_than_the_candidates_are_refused(tmp_path):
    path = tmp_path / "shortlist.toml"
    path.write_text('[log]\nevents = "x"\n[columns]\nuser_id = "u"\nitem_id = "i"\n')
    with pytest.raises(RecipeError, match="candidates must be at least the longest"):
        load_recipe(path, ["ranker.candidates=10"])
    load_recipe(path, ["ranker.candidates=10", "ranker.enabled=false"])


# --- kinds of retrieval -----------------------------------------------------------


def minimal(**retrieval: Any) -> Recipe:
    log, columns = {"events": "x"}, {"user_id": "u", "item_id": "i"}
    return build_recipe({"log": log, "columns": columns, "retrieval": retrieval})


def test_the_kinds_are_those_of_the_scorers():
    assert set(RETRIEVAL_KINDS) == set(KINDS)
    section = minimal().retrieval
    assert section.kind == "two_tower"
    for kind, scorer in SCORERS.items():
        options = getattr(section, kind)
        assert scorer(options).options is not None
        assert type(scorer().options) is type(options)


@pytest.mark.parametrize(
    ("retrieval", "words"),
    [
        ({"kind": "eese"}, "Did you mean 'ease'?"),
        ({"blend": {"members": ["ease", "blend"]}}, "must be one of"),
        ({"blend": {"members": ["ease", "ease"]}}, "a member once"),
        ({"blend": {"members": []}}, "at least 1"),
        ({"item_knn": {"neighbors": 9}}, "Did you mean 'neighbours'?"),
        ({"ease": {"l2": 0.0}}, "greater than 0"),
        ({"item_knn": {"similarity": "dice"}}, "'jaccard'"),
    ],
)
def test_unusable_kinds_and_options_are_refused(retrieval, words):
    with pytest.raises(RecipeError) as caught:
        minimal(**retrieval)
    assert caught.value.code == "recipe-invalid"
    assert words in str(caught.value)
