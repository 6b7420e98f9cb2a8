"""A bundle on disk: one directory without executable code.

It is written whole or not at all. Reading checks sizes and SHA-256 of all files and
refuses missing and additional files and links. Needs NumPy, Polars, msgspec and
safetensors; imports no Keras and runs no graph.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

import shortlist
from shortlist.atomic import atomic_directory, check_absent
from shortlist.bundle.checks import reading, refuse
from shortlist.bundle.contents import (
    BundleContents,
    RankerContents,
    RetrievalContents,
    TowerContents,
    check_contents,
)
from shortlist.bundle.held import hold_files
from shortlist.bundle.manifest import (
    ITEMS,
    MANIFEST,
    USERS,
    FileEntry,
    Manifest,
    RankerEntry,
    RetrievalEntry,
    ScorerEntry,
    files_version,
    vocabulary_path,
)
from shortlist.bundle.tensors import save_tensors, tensors_in
from shortlist.data.store.vocabulary import Vocabulary, read_frame
from shortlist.errors import ArtifactError
from shortlist.models.scorers.vectors import TWO_TOWER
from shortlist.outputs import BUNDLE

ITEM_VECTORS = "item_vectors"

Files = Mapping[str, np.ndarray]  # bytes of each file by its relative path


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Directory, manifest and contents of a bundle that was read."""

    path: Path
    manifest: Manifest
    contents: BundleContents


def write_bundle(
    path: str | Path, contents: BundleContents, *, overwrite: bool = False
) -> Manifest:
    """Writes a bundle directory: the manifest last, then one rename.

    Args:
        path: the directory to write.
        contents: checked before anything is written.
        overwrite: replace an existing directory once the new one is complete.

    Returns:
        The manifest.

    Raises:
        ArtifactError: the parts do not fit together (`bundle-inconsistent`) or hold
            NaN or infinity (`bundle-not-finite`).
        InputError: `path` exists (`output-exists`).
        ResourceError: the disk is full or not writable.
    """
    check_absent(path, overwrite=overwrite, kind=BUNDLE)
    check_contents(contents)
    with atomic_directory(path, overwrite=overwrite, kind=BUNDLE) as directory:
        _write_files(directory, contents)
        manifest = _describe(directory, contents)
        (directory / MANIFEST).write_bytes(manifest.to_json())
    return manifest


def read_bundle(
    path: str | Path, *, verify: bool = True, memory_bytes: int | None = None
) -> Bundle:
    """Reads a bundle directory. Each file is read once; later changes have no effect.

    Args:
        path: a directory of `write_bundle`, or a link to one.
        verify: compare the SHA-256 of every file with the manifest. Sizes, names and
            shapes are always checked.
        memory_bytes: most bytes of files to copy into memory; half of the free memory
            by default. Files beyond it are mapped if only their owner may write.

    Raises:
        ArtifactError: there is no bundle, its format is newer, or a file is missing,
            additional, changed, a link, outside the directory or inconsistent with the
            others; `file` names it. The codes begin with `bundle-`.
    """
    root = Path(path)
    with reading(root / MANIFEST):
        manifest = _read_manifest(root)
    files = hold_files(root, manifest.files, verify=verify, memory_bytes=memory_bytes)
    contents = _read_contents(root, manifest, files)
    with reading(root / MANIFEST):
        check_contents(contents)
    return Bundle(path=root, manifest=manifest, contents=contents)


def _read_manifest(root: Path) -> Manifest:
    if not (root / MANIFEST).is_file():
        raise ArtifactError(
            "bundle-missing",
            f"There is no bundle at {str(root)!r}: it has no {MANIFEST}. Pass the"
            " directory that `shortlist export` wrote.",
            file=root,
        )
    _check_links(root)
    manifest = Manifest.from_json((root / MANIFEST).read_bytes(), root / MANIFEST)
    _check_names(root, manifest)
    return manifest


def _write_files(directory: Path, contents: BundleContents) -> None:
    (directory / "vocabularies").mkdir()
    (directory / "tables").mkdir()
    for name, vocabulary in contents.vocabularies.items():
        vocabulary.save(directory / vocabulary_path(name))
    contents.items.rechunk().write_ipc(directory / ITEMS)
    contents.users.rechunk().write_ipc(directory / USERS)
    if (retrieval := contents.retrieval) is not None:
        for tower in retrieval.towers.values():
            _write_tower(directory, tower, _tower_entry(tower))
        if (entry := _scorer_entry(retrieval)) is not None:
            save_tensors(directory / entry.arrays, retrieval.arrays)
    if (ranker := contents.ranker) is not None:
        (directory / _ranker_entry(ranker).graph).write_bytes(ranker.graph)
        save_tensors(directory / _ranker_entry(ranker).tables, ranker.tables)


def _write_tower(directory: Path, part: TowerContents, entry: RetrievalEntry) -> None:
    (directory / entry.graph).write_bytes(part.graph)
    save_tensors(directory / entry.tables, part.tables)
    save_tensors(directory / entry.item_vectors, {ITEM_VECTORS: part.item_vectors})


def _scorer_entry(part: RetrievalContents | None) -> ScorerEntry | None:
    """The entry of a scorer; a two-tower model alone has a `_retrieval_entry`."""
    if part is None or part.kind == TWO_TOWER:
        return None
    return ScorerEntry(
        kind=part.kind,
        config=dict(part.config),
        arrays="scorer.safetensors",
        # A blend has each kind of member once, and thus at most one two-tower model.
        towers={name: _tower_entry(tower) for name, tower in part.towers.items()},
    )


def _retrieval_entry(part: RetrievalContents | None) -> RetrievalEntry | None:
    if part is None or part.kind != TWO_TOWER:
        return None
    return _tower_entry(part.towers[TWO_TOWER])


def _tower_entry(part: TowerContents) -> RetrievalEntry:
    return RetrievalEntry(
        graph="user_tower.onnx",
        tables="tables/retrieval.safetensors",
        inputs=part.inputs,
        history_length=part.history_length,
        embedding_dim=part.item_vectors.shape[1],
        item_vectors="item_vectors.safetensors",
        num_queries=part.num_queries,
        item_bias=part.item_bias,
    )


def _ranker_entry(part: RankerContents) -> RankerEntry:
    return RankerEntry(
        graph="ranker.onnx",
        tables="tables/ranker.safetensors",
        inputs=part.inputs,
        history_length=part.history_length,
        weight=part.weight,
        candidates=part.candidates,
        objective=part.objective,
    )


def _describe(directory: Path, contents: BundleContents) -> Manifest:
    files = {
        file: FileEntry(_sha256(directory / file), (directory / file).stat().st_size)
        for file in sorted(_files_under(directory))
    }
    retrieval, ranker = contents.retrieval, contents.ranker
    return Manifest(
        shortlist_version=shortlist.__version__,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        name=contents.name,
        version=files_version(files),
        files=files,
        schema=contents.schema,
        retrieval=_retrieval_entry(retrieval),
        scorer=_scorer_entry(retrieval),
        ranker=None if ranker is None else _ranker_entry(ranker),
        repeats=True if contents.repeats else msgspec.UNSET,
        metrics=dict(contents.metrics),
        environment=dict(contents.environment),
    )


def _check_links(root: Path) -> None:
    for entry in root.rglob("*"):
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            raise ArtifactError(
                "bundle-symlink",
                "A bundle must contain plain files, no links and no devices. Found"
                f" {entry.relative_to(root).as_posix()!r}. Copy the files themselves.",
                file=entry,
            )


def _check_names(root: Path, manifest: Manifest) -> None:
    present = set(_files_under(root)) - {MANIFEST}
    for name in sorted(present - set(manifest.files)):
        raise ArtifactError(
            "bundle-extra-file",
            f"A bundle must contain only the files of its manifest. Found {name!r}."
            " Remove it, or export the bundle again.",
            file=root / name,
        )
    for name in sorted({*manifest.files} | _needed(manifest)):
        # A required file that the manifest does not list has no hash to compare.
        if name not in present or name not in manifest.files:
            raise ArtifactError(
                "bundle-missing-file",
                f"The file {name!r} of the bundle is missing. Copy or export the"
                " bundle again.",
                file=root / name,
            )
    version = files_version(manifest.files)
    if manifest.version != version:
        raise ArtifactError(
            "bundle-corrupt",
            f"The manifest does not match its list of files: the version must be"
            f" {version!r}. Found {manifest.version[:40]!r}. Copy or export the bundle"
            " again.",
            file=root / MANIFEST,
        )


def _needed(manifest: Manifest) -> set[str]:
    needed = {ITEMS, USERS}
    towers = [] if manifest.retrieval is None else [manifest.retrieval]
    if (scorer := manifest.scorer) is not None:
        needed.add(scorer.arrays)
        towers += scorer.towers.values()
    for tower in towers:
        needed |= {tower.graph, tower.tables, tower.item_vectors}
    if (ranker := manifest.ranker) is not None:
        needed |= {ranker.graph, ranker.tables}
    return needed


def _read_contents(root: Path, manifest: Manifest, files: Files) -> BundleContents:
    vocabularies = {}
    for file in manifest.files:
        if file.startswith("vocabularies/"):
            with reading(root / file):
                vocabulary = Vocabulary.load(root / file, files[file].tobytes())
            vocabularies[vocabulary.name] = vocabulary
    return BundleContents(
        name=manifest.name,
        schema=manifest.schema,
        vocabularies=vocabularies,
        items=_read_frame(root / ITEMS, files[ITEMS]),
        users=_read_frame(root / USERS, files[USERS]),
        retrieval=_read_retrieval(root, files, manifest),
        ranker=_read_ranker(root, files, manifest.ranker),
        repeats=manifest.repeats is True,
        metrics=manifest.metrics,
        environment=manifest.environment,
    )


def _read_retrieval(
    root: Path, files: Files, manifest: Manifest
) -> RetrievalContents | None:
    """The scorer, or the two-tower model that a manifest describes in its own field."""
    tower, scorer = manifest.retrieval, manifest.scorer
    if tower is not None and scorer is not None:
        refuse(MANIFEST, "must name a two-tower model or a scorer", "both")
    if tower is not None:
        return RetrievalContents.of_tower(_read_tower(root, files, tower))
    if scorer is None:
        return None
    if scorer.kind == TWO_TOWER:
        refuse(MANIFEST, "must have a two-tower model as `retrieval`", "it as `scorer`")
    return RetrievalContents(
        kind=scorer.kind,
        config=scorer.config,
        arrays=_tensors(files, root, scorer.arrays, integers=True),
        towers={
            name: _read_tower(root, files, entry)
            for name, entry in scorer.towers.items()
        },
    )


def _read_tower(root: Path, files: Files, entry: RetrievalEntry) -> TowerContents:
    vectors = _tensors(files, root, entry.item_vectors).get(ITEM_VECTORS)
    if vectors is None or vectors.shape[1:] != (entry.embedding_dim,):
        found = "no such tensor" if vectors is None else f"shape {vectors.shape}"
        raise ArtifactError(
            "bundle-inconsistent",
            f"Tensor {ITEM_VECTORS!r} must have vectors of {entry.embedding_dim}"
            f" numbers, as the manifest says. Found {found}. Export the bundle again.",
            file=root / entry.item_vectors,
        )
    return TowerContents(
        graph=files[entry.graph].tobytes(),
        tables=_tensors(files, root, entry.tables),
        inputs=entry.inputs,
        history_length=entry.history_length,
        item_vectors=vectors,
        num_queries=entry.num_queries,
        item_bias=entry.item_bias,
    )


def _read_ranker(
    root: Path, files: Files, entry: RankerEntry | None
) -> RankerContents | None:
    if entry is None:
        return None
    return RankerContents(
        graph=files[entry.graph].tobytes(),
        tables=_tensors(files, root, entry.tables),
        inputs=entry.inputs,
        history_length=entry.history_length,
        weight=entry.weight,
        candidates=entry.candidates,
        objective=entry.objective,
    )


def _tensors(
    files: Files, root: Path, name: str, *, integers: bool = False
) -> dict[str, np.ndarray]:
    with reading(root / name):
        return tensors_in(files[name], root / name, integers=integers)


def _read_frame(path: Path, data: np.ndarray) -> pl.DataFrame:
    try:
        with reading(path):
            return read_frame(path, data)
    except ArtifactError as error:
        raise ArtifactError(
            "bundle-unreadable",
            f"The Arrow file {path.name!r} cannot be read: {error.__cause__}. Export"
            " the bundle again.",
            file=path,
        ) from error


def _files_under(root: Path) -> Iterator[str]:
    """Relative paths of everything that is not a directory, with forward slashes."""

    def refuse(error: OSError) -> None:
        raise error

    for directory, _, names in os.walk(root, onerror=refuse):
        for name in names:
            yield (Path(directory) / name).relative_to(root).as_posix()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
