"""From a raw log to a served request: python examples/end_to_end.py

Generates a small log, prepares it, trains, evaluates, exports a bundle and sends one
request to a real server on loopback. Needs `shortlist[jax,serve]`; takes about 20 s.
"""

import json
import tempfile
import urllib.request
from pathlib import Path

from shortlist.bundle.export import export_bundle
from shortlist.data import Feature, LogFiles, Schema, Split, prepare
from shortlist.evaluation import EvaluationOptions, evaluate_pipeline, ranking_metrics
from shortlist.public_data.synthetic import SyntheticLog, generate
from shortlist.recipe import build_recipe
from shortlist.serving.http.server import RunningServer, serve
from shortlist.training import load_pipeline, train


def main(folder: Path) -> dict[str, object]:
    """Runs every stage in `folder` and returns the answer of the server."""
    # 1. A log like that of your own system: events and item attributes.
    log = generate(SyntheticLog(num_users=400, num_items=200, num_events=20_000))
    log.write_csv(folder / "events.csv")
    log.write_csv(folder / "items.csv", table="items")

    # 2. LOG -> DATASET: declare the columns and the split.
    schema = Schema(
        user_id="user_id",
        item_id="item_id",
        timestamp="timestamp_ms",
        label="rating",
        label_kind="explicit",
        positive_from=4,
        label_min=1,
        label_max=5,
        features=(Feature(name="category", owner="item", kind="categorical"),),
        title="title",
    )
    dataset = prepare(
        LogFiles(folder / "events.csv", items=folder / "items.csv"),
        schema,
        folder / "dataset",
        split=Split(kind="last_fraction", test=0.2, validation=0.1),
    )
    print("parts:", dataset.info.parts)

    # 3. DATASET + MODEL -> RUN, with early stopping on the validation part.
    recipe = build_recipe(
        {
            "log": {"events": "events.csv"},
            "columns": schema,
            "retrieval": {"embedding_dim": 16, "epochs": 8, "batch_size": 512},
            "ranker": {"objective": "explicit", "embedding_dim": 8, "epochs": 4},
        }
    )
    run = train(dataset, folder / "run", recipe, validate=ranking_metrics)

    # 4. SCORES -> METRICS on the test part, compared with popularity.
    pipeline = load_pipeline(run, dataset)
    report = evaluate_pipeline(
        pipeline, EvaluationOptions(objective="explicit", ks=(10,))
    ).report
    for who, metrics in report["metrics"].items():
        print(f"{who}: ndcg@10 {metrics['ndcg@10']:.4f}")

    # 5. RUN -> ONE DIRECTORY without code; 6. serve it.
    export_bundle(folder / "bundle", pipeline, name="example")
    answers: list[dict[str, object]] = []

    def ask(server: RunningServer) -> None:
        body = json.dumps({"user_id": 1, "k": 5}).encode()
        request = urllib.request.Request(
            f"{server.url}/api/v1/recommend", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answers.append(json.load(response))
        server.stop()

    serve(folder / "bundle", port=0, on_ready=ask)
    print("answer:", json.dumps(answers[0]))
    return answers[0]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
