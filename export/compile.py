"""One graph -> one TensorRT plan: parse, lint, profiles, compile. Runs as a process of its own; no torch, no onnx.

A compiler that crashes, or keeps its memory, then harms nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import FacrtError
from ..model.components import Component
from ..runtime.trt_library import Log, dtype_names, logger_of, open_library

Shapes = dict[str, list[list[int]]]  # input -> its least, usual and largest shape
TIMEOUT_S = 4 * 3600
UNUSED_OUTPUTS = ("TOPK",)  # ArgMax leaves the values of its TopK unread
BROKEN_PROFILE = "not self-consistent"  # TensorRT only warns
# a plan holds its graph's weights once, and its own description
OVERHEAD, OVERHEAD_BYTES = 1.3, 16 << 20


class CompileError(FacrtError):
    """A graph that TensorRT does not take, or takes wrongly."""


@dataclass(frozen=True, slots=True)
class Job:
    """What the process is asked."""

    library: str  # "tensorrt_rtx" or "tensorrt"
    graph: str  # path of the ONNX file
    plan: str  # path to write
    profiles: list[Shapes]
    capabilities: list[int]  # SM numbers to compile for; empty: the GPU that is here


@dataclass(frozen=True, slots=True)
class Compiled:
    """What came out."""

    version: str  # of the library
    seconds: float  # of the builder, parsing not counted
    plan_bytes: int
    peak_bytes: int  # resident memory of the process


def profiles_of(component: Component) -> list[Shapes]:
    """The table's lengths as shapes; inputs whose shape never varies are left out."""
    varying = [spec for spec in component.all_inputs if any(isinstance(axis, str) for axis in spec.axes)]
    return [
        {
            spec.name: [[profile[a][k] if isinstance(a, str) else a for a in spec.axes] for k in range(3)]
            for spec in varying
        }
        for profile in (component.profiles if varying else ())
    ]


def compile_apart(job: Job, component: Component) -> Compiled:
    """Compiles in a process of its own.

    Raises:
        CompileError: the graph is refused, the compiler crashes, or the plan does not hold its weights packed.
    """
    call = [sys.executable, "-m", __name__]
    given = json.dumps({"job": asdict(job), "signature": signature(component)})
    try:
        done = subprocess.run(call, input=given, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise CompileError(f"{job.graph}: the compiler did not end within {TIMEOUT_S // 3600} hours") from None
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = " ".join(done.stderr.split()[-40:])
        raise CompileError(f"{job.graph}: the compiler ended with code {done.returncode} ({last})") from None
    if "error" in answer:
        raise CompileError(answer["error"])
    return Compiled(**answer)


def signature(component: Component) -> dict[str, dict[str, str]]:
    """Names and types that a network must have, as the table says."""
    return {
        "inputs": {spec.name: spec.dtype for spec in component.all_inputs},
        "outputs": {spec.name: spec.dtype for spec in component.all_outputs},
    }


def compile_graph(job: Job, wanted: Mapping[str, Mapping[str, str]]) -> Compiled:
    """Compiles in this process.

    Args:
        wanted: a `signature`.

    Raises:
        CompileError: as `compile_apart`.
        RequestError: the library is not installed.
    """
    trt = open_library(job.library)
    log = Log()
    builder = trt.Builder(logger_of(trt, log))
    network = parse(trt, builder, job.graph, log)
    faults = lint(trt, network) + differences(trt, network, wanted)
    if faults:
        raise CompileError(f"{job.graph} would be compiled wrongly: {'; '.join(faults)}")
    config = builder.create_builder_config()
    if job.capabilities:
        config.num_compute_capabilities = len(job.capabilities)
        for i, number in enumerate(job.capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{number}"), i)
    for shapes in job.profiles:
        profile = builder.create_optimization_profile()
        for name, (least, usual, most) in shapes.items():
            profile.set_shape(name, least, usual, most)
        config.add_optimization_profile(profile)
    started = time.monotonic()
    plan = builder.build_serialized_network(network, config)
    seconds = time.monotonic() - started
    if plan is None:
        raise CompileError(f"{job.graph} does not compile with {job.library} {trt.__version__}: {log.last_error()}")
    broken = [text for text in log.warnings if BROKEN_PROFILE in text]
    if broken:
        raise CompileError(f"{job.graph} has a profile that contradicts itself: {' '.join(broken[0].split())}")
    refuse_unpacked(job.graph, graph_bytes(Path(job.graph)), plan.nbytes)
    with Path(job.plan).open("wb") as file:
        file.write(plan)
    return Compiled(trt.__version__, seconds, plan.nbytes, peak_bytes())


def peak_bytes() -> int:
    """The most resident memory that this process had; 0 where the system does not say.

    Not `getrusage`, whose maximum is at least what the process that started this one had.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0


def parse(trt: Any, builder: Any, path: str, log: Log) -> Any:
    """The network of an ONNX file, strongly typed; its parser is kept alive with it.

    Raises:
        CompileError: TensorRT does not read it.
    """
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger_of(trt, log))
    if not parser.parse_from_file(path):
        reasons = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise CompileError(f"{path} cannot be read by TensorRT {trt.__version__}: {reasons or log.last_error()}")
    return network


def lint(trt: Any, network: Any) -> list[str]:
    """What the parser dropped without a word: inputs that no layer reads, results that nothing uses.

    TensorRT-RTX 1.7 reads an `Attention` with `nonpad_kv_seqlen` and forgets the length: it would attend to padding.
    What computed the length is then left over, and found here.
    """
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    read = {layer.get_input(j).name for layer in layers for j in range(layer.num_inputs) if layer.get_input(j)}
    given = {network.get_output(i).name for i in range(network.num_outputs)}
    inputs = [network.get_input(i).name for i in range(network.num_inputs)]
    exempt = {getattr(trt.LayerType, name) for name in UNUSED_OUTPUTS}
    faults = [f"input {name} is read by no layer" for name in inputs if name not in read | given]
    for layer in layers:
        unread = [layer.get_output(j) for j in range(layer.num_outputs)]
        names = [tensor.name for tensor in unread if tensor is not None and tensor.name not in read | given]
        if names and layer.type not in exempt:
            faults.append(f"the result of {layer.name} ({str(layer.type).removeprefix('LayerType.')}) is dropped")
    return faults


def differences(trt: Any, network: Any, wanted: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Where a network's tensors are not the table's."""
    names = dtype_names(trt)
    tensors = {
        "inputs": [network.get_input(i) for i in range(network.num_inputs)],
        "outputs": [network.get_output(i) for i in range(network.num_outputs)],
    }
    faults = []
    for side, specs in wanted.items():
        found = {tensor.name: names.get(tensor.dtype, str(tensor.dtype)) for tensor in tensors[side]}
        if found != dict(specs):
            wrong = sorted({*found.items()} ^ {*specs.items()})
            faults.append(f"{side} differ from the table: {wrong}")
    return faults


def graph_bytes(path: Path) -> int:
    """An ONNX file and the weights beside it."""
    return sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*"))


def refuse_unpacked(graph: str, graph_size: int, plan_size: int) -> None:
    """Raises CompileError where a plan is so large that it must hold weights twice, or unpacked integers."""
    if plan_size > OVERHEAD * graph_size + OVERHEAD_BYTES:
        raise CompileError(
            f"{graph} of {graph_size >> 20} MiB became a plan of {plan_size >> 20} MiB: "
            "its weights are stored twice, or no longer as integers"
        )


def main(lines: Sequence[str]) -> None:
    """Reads a job as JSON, prints what came of it as JSON."""
    given = json.loads("".join(lines))
    try:
        answer = asdict(compile_graph(Job(**given["job"]), given["signature"]))
    except FacrtError as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(sys.stdin.readlines())
