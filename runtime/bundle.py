"""The exported folder: its manifest, and the strict checks that opening it makes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BundleError, CheckpointError
from ..model import config as configs
from ..model.components import Cache, CacheLayout, Component, ModelConfig, components
from ._native import EmbeddingTable

FORMAT_VERSION = 4
MANIFEST = "manifest.json"
NATIVE = ("backbone", "speech_head")  # what the C++ decoders run
LIBRARIES = ("tensorrt_rtx", "tensorrt")  # that make plans
ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class FileEntry:
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class TableEntry:
    """A plain row-major little-endian array."""

    file: str
    dtype: str  # a key of ITEM_BYTES
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PlanEntry:
    """A component compiled by TensorRT; what it asks of the machine that runs it."""

    file: str
    library: str  # "tensorrt_rtx" or "tensorrt"
    version: str  # of the library: a plan runs with this one alone
    capabilities: tuple[int, ...]  # SM numbers that it was compiled for


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `manifest.json` says; field for field."""

    facrt_version: str
    source: str  # the checkpoint's folder name, or "nano"
    target: str
    attention: str  # the form's name, for people
    cache: CacheLayout
    model: ModelConfig
    recipe: dict[str, str]  # component -> precision
    graphs: dict[str, str]  # component -> .onnx file; the backbone may be without, where it has a native form
    native: dict[str, str]  # component -> weight file of its native form, where it has one
    tables: dict[str, TableEntry]
    tokenizer: str
    chat_template: str | None
    system: str | None  # the system prompt, where it is not the checkpoint's
    sampling: dict[str, Any]  # defaults of sampled generation
    speakers: dict[str, int]  # name -> row of the "speakers" table; the first is the default
    parity: dict[str, Any]  # what `verify` measured at export
    files: dict[str, FileEntry]
    cache_dtype: str  # of keys and values
    positions: int | None  # backbone positions, where compiled graphs bound them
    plans: dict[str, PlanEntry]  # component -> what TensorRT made of its graph
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        texts = {n: getattr(self, n) for n in ("facrt_version", "source", "target", "attention", "tokenizer")}
        texts |= {f"recipe of {k}": v for k, v in self.recipe.items()}
        texts |= {f"graph of {k}": v for k, v in self.graphs.items()}
        texts |= {f"native form of {k}": v for k, v in self.native.items()}
        optional = {"chat_template": self.chat_template, "system": self.system}
        texts |= {name: value for name, value in optional.items() if value is not None}
        texts |= {f"plan of {k}": v.file for k, v in self.plans.items()}
        texts |= {f"plan of {k}, version": v.version for k, v in self.plans.items()}
        faults = [f"{name} is {value!r}" for name, value in texts.items() if not isinstance(value, str)]
        faults += [f"plan of {k}, library {v.library!r}" for k, v in self.plans.items() if v.library not in LIBRARIES]
        faults += [
            f"plan of {k}, capabilities {v.capabilities}"
            for k, v in self.plans.items()
            if not all(type(number) is int for number in v.capabilities)
        ]
        faults += [f"{n} is {getattr(self, n)!r}" for n in ("sampling", "parity") if type(getattr(self, n)) is not dict]
        if self.cache not in ("prefix", "static"):
            faults.append(f"cache layout {self.cache!r}")
        if self.cache_dtype not in ("float32", "float16", "int8"):
            faults.append(f"cache_dtype {self.cache_dtype!r}")
        if self.positions is not None and (type(self.positions) is not int or self.positions < 1):
            faults.append(f"positions {self.positions!r}")
        forms = set(self.graphs) | ({"backbone"} & set(self.native))
        if set(self.recipe) != forms:
            faults.append(f"recipe and graphs disagree about {', '.join(sorted(set(self.recipe) ^ forms))}")
        if list(self.speakers.values()) != list(range(len(self.speakers))):
            faults.append(f"speakers {self.speakers} do not number the rows of a table")
        faults += [f"table {k} has dtype {t.dtype!r}" for k, t in self.tables.items() if t.dtype not in ITEM_BYTES]
        if faults:
            raise TypeError("; ".join(faults))

    @property
    def kept(self) -> Cache:
        return Cache(self.cache, self.cache_dtype, self.positions)

    def write(self, folder: Path) -> None:
        """Writes `manifest.json` by rename, so that a folder with a manifest is whole."""
        partial = folder / f"{MANIFEST}.partial"
        raw = asdict(self)
        raw["model"] = {k: v for k, v in raw["model"].items() if v is not None}
        partial.write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.rename(folder / MANIFEST)


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle; every file has been checked."""

    folder: Path
    manifest: Manifest
    components: dict[str, Component] = field(repr=False)

    def graph_path(self, component: str) -> Path:
        """Where a component's graph lies.

        Raises:
            BundleError: the bundle has only its native form.
        """
        if component not in self.manifest.graphs:
            raise BundleError(f"{self.folder} holds no graph of the {component}; export it with --{component} both")
        return self.folder / self.manifest.graphs[component]

    def plan_path(self, component: str) -> Path:
        return self.folder / self.manifest.plans[component].file

    def embedding_table(self, name: str) -> EmbeddingTable:
        """A memory-mapped table of rows."""
        entry = self.manifest.tables[name]
        rows, cols = entry.shape
        return EmbeddingTable(str(self.folder / entry.file), rows, cols, entry.dtype)

    def array(self, name: str) -> np.ndarray:
        """A memory-mapped float32 table of any rank."""
        entry = self.manifest.tables[name]
        return np.memmap(self.folder / entry.file, np.float32, "r", shape=entry.shape)

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.manifest.files.values())


def hash_files(folder: Path, names: Iterable[str]) -> dict[str, FileEntry]:
    """Size and SHA-256 of each file; several at once."""

    def entry(name: str) -> FileEntry:
        digest = hashlib.sha256()
        with (folder / name).open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
        return FileEntry((folder / name).stat().st_size, digest.hexdigest())

    names = sorted(names)
    with ThreadPoolExecutor() as pool:
        return dict(zip(names, pool.map(entry, names), strict=True))


def open_bundle(folder: Path | str, check_hashes: bool = True) -> Bundle:
    """Opens a bundle and checks all of it.

    Args:
        folder: where `facrt export` wrote it.
        check_hashes: False skips the SHA-256 of the files (sizes are still compared).

    Raises:
        BundleError: no manifest, an unknown format version, a missing, changed or misplaced file, a wrong shape.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        raise BundleError(f"{folder} holds no {MANIFEST}: it is no bundle; make one with facrt export")
    manifest = read_manifest(folder / MANIFEST)
    root = folder.resolve()
    for name, entry in manifest.files.items():
        path = folder / name
        if Path(name).is_absolute() or not path.resolve().is_relative_to(root):
            raise BundleError(f"{folder / MANIFEST} names {name!r}, which is outside the bundle; export it again")
        if not path.is_file():
            raise BundleError(f"{path} is missing; export the bundle again")
        if path.stat().st_size != entry.size_bytes:
            raise BundleError(
                f"{path} has {path.stat().st_size} bytes, the manifest says {entry.size_bytes}; export the bundle again"
            )
    if check_hashes:
        for name, found in hash_files(folder, manifest.files).items():
            if found.sha256 != manifest.files[name].sha256:
                raise BundleError(f"{folder / name} does not have the SHA-256 of the manifest; export the bundle again")
    table = components(manifest.model, manifest.kept)
    _check_contents(folder, manifest, table)
    return Bundle(folder, manifest, table)


def _check_contents(folder: Path, manifest: Manifest, table: Mapping[str, Component]) -> None:
    where = folder / MANIFEST
    if set(manifest.recipe) != set(table):
        wrong = ", ".join(sorted(set(manifest.recipe) ^ set(table)))
        raise BundleError(f"{where}: graphs and model disagree about {wrong}; export the bundle again")
    if not set(manifest.native) <= set(NATIVE):
        raise BundleError(f"{where}: only {' and '.join(NATIVE)} have native forms, not {', '.join(manifest.native)}")
    chat = manifest.model.chat
    hidden = chat.text.hidden_size
    needed: dict[str, tuple[int, ...]] = {
        "text_embedding": (chat.text.vocab_size, hidden),
        "speech_embedding": (chat.codebook_size, hidden),
        "speech_grouping": (chat.codebook_size, hidden),
    }
    if manifest.model.flow is not None:
        flow, noise = manifest.model.flow, manifest.tables.get("flow_noise")
        needed["flow_noise"] = (1, flow.num_mels, *(noise.shape[2:] if noise else (0,)))
        needed["speakers"] = (len(manifest.speakers), flow.speaker_dim)
    for name, shape in needed.items():
        if name not in manifest.tables:
            raise BundleError(f"{where} lists no table {name}; export the bundle again")
        if manifest.tables[name].shape != shape:
            raise BundleError(f"{where}: table {name} is {manifest.tables[name].shape}, the model needs {shape}")
        if name in ("flow_noise", "speakers") and manifest.tables[name].dtype != "float32":
            raise BundleError(f"{where}: table {name} is {manifest.tables[name].dtype}, float32 is needed")
    if not set(manifest.plans) <= set(table):
        raise BundleError(f"{where}: plans of {', '.join(sorted(set(manifest.plans) - set(table)))}; export it again")
    named = {*manifest.graphs.values(), *manifest.native.values(), manifest.tokenizer}
    named |= {plan.file for plan in manifest.plans.values()}
    named |= {t.file for t in manifest.tables.values()}
    if manifest.chat_template:
        named.add(manifest.chat_template)
    unlisted = sorted(named - set(manifest.files))
    if unlisted:
        raise BundleError(f"{where} gives no size and hash for {', '.join(unlisted)}; export the bundle again")
    for entry in manifest.tables.values():
        size = int(np.prod(entry.shape)) * ITEM_BYTES[entry.dtype]
        if manifest.files[entry.file].size_bytes != size:
            raise BundleError(f"{folder / entry.file} cannot hold {entry.dtype} {entry.shape}; export the bundle again")


def read_manifest(path: Path) -> Manifest:
    """Reads `manifest.json` strictly.

    Raises:
        BundleError: no JSON, another format version, a field missing, unknown or of the wrong kind.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        version = raw["format_version"]
    except (OSError, ValueError, KeyError, TypeError):
        raise BundleError(f"{path} is no manifest of facrt; export the bundle again") from None
    if version != FORMAT_VERSION:
        remedy = "install a newer facrt" if isinstance(version, int) and version > FORMAT_VERSION else "export it again"
        raise BundleError(f"{path} has format version {version!r}, this facrt reads {FORMAT_VERSION}; {remedy}")
    try:
        kinds = {
            "chat": configs.ChatConfig,
            "flow": configs.FlowConfig,
            "vocoder": configs.VocoderConfig,
            "speech_tokenizer": configs.SpeechTokenizerConfig,
        }
        raw["model"] = ModelConfig(**{k: configs.from_dict(kinds[k], v) for k, v in raw["model"].items()})
        raw["tables"] = {k: TableEntry(**{**v, "shape": tuple(v["shape"])}) for k, v in raw["tables"].items()}
        raw["plans"] = {
            k: PlanEntry(**{**v, "capabilities": tuple(v["capabilities"])}) for k, v in raw["plans"].items()
        }
        raw["files"] = {k: FileEntry(**v) for k, v in raw["files"].items()}
        return Manifest(**raw)
    except (KeyError, TypeError, AttributeError, ValueError, AssertionError, CheckpointError) as error:
        raise BundleError(f"{path} is damaged ({error}); export the bundle again") from None
