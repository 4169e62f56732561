"""The models that a command or a call is about, found for each query by the names that it declares."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from lpverify.errors import InputError
from lpverify.io.assembly import Assembly, assemble
from lpverify.io.interface import Interface
from lpverify.io.model import Model
from lpverify.io.onnx import DEFAULT_LIMITS, ModelLimits, import_model, load_model
from lpverify.query import Declaration, Query

Source: TypeAlias = "Model | str"  # loaded, or the path of a file


@dataclass
class Models:
    """Loads each model once for all queries that want the same of it.

    Attributes:
        sources: By the names of networks; a single one may have the empty name, which fits every query that
            needs one model.
        lenient: Accept what the standard forbids where the meaning is clear: element types that are not the
            model's, and names that no network of the query has.
        limits: How much a file may ask for.
    """

    sources: Mapping[str, Source]
    lenient: bool = False
    limits: ModelLimits = DEFAULT_LIMITS
    _loaded: dict[tuple[str, Interface | None], Model] = field(default_factory=dict)

    @property
    def paths(self) -> tuple[str, ...]:
        """Of all models, each once."""
        paths = (s.path if isinstance(s, Model) else s for s in self.sources.values())
        return tuple(dict.fromkeys(paths))

    def fitting(self, query: Query) -> Assembly:
        """The model for a query.

        Raises:
            InputError: There are too few or too many models, or they do not fit the query.
            UnsupportedError: Some nodes can't be translated.
        """
        if not query.networks:
            if len(self.sources) != 1:
                raise InputError(f"{query.path}: is about one network, {len(self.sources)} are given")
            return Assembly(self._load(next(iter(self.sources.values())), None))
        sources, remarks = self._assigned(query)
        found = assemble(query, lambda name, interface: self._load(sources[name], interface), self.lenient)
        return Assembly(found.model, (*remarks, *found.remarks))

    def _load(self, source: Source, interface: Interface | None) -> Model:
        if isinstance(source, Model):
            if interface is None or _satisfied(source, interface):
                return source
            return import_model(source.serialized, source.path, None, interface, self.limits)
        key = (source, interface)
        if key not in self._loaded:
            self._loaded[key] = load_model(source, interface, self.limits)
        return self._loaded[key]

    def _assigned(self, query: Query) -> tuple[dict[str, Source], tuple[str, ...]]:
        """The source for each network that needs one, and what had to be overlooked."""
        free = [d for d in query.networks if not d.equal_to]
        if "" in self.sources:
            if len(free) > 1:
                names = ", ".join(d.name for d in free)
                raise InputError(
                    f"{query.path}: declares networks {names}: give --network NAME=FILE for each"
                )
            return {free[0].name: self.sources[""]}, ()
        if self.lenient and len(free) == len(self.sources) == 1 and free[0].name not in self.sources:
            (name, source), *_ = self.sources.items()
            return {free[0].name: source}, (f"network {free[0].name} is given as {name}",)
        for text in self._misfits(query, free):
            raise InputError(f"{query.path}: {text}")
        return {d.name: self.sources[d.name] for d in free}, ()

    def _misfits(self, query: Query, free: Sequence[Declaration]) -> Iterator[str]:
        declared = {d.name: d for d in query.networks}
        yield from (f"no model for network {d.name}" for d in free if d.name not in self.sources)
        yield from (f"declares no network {name}" for name in self.sources if name not in declared)
        for name, source in self.sources.items():
            origin = name
            while origin in declared and declared[origin].equal_to:
                origin = declared[origin].equal_to
            other = self.sources.get(origin, source)
            if origin != name and not _same(source, other):
                yield f"network {name} is declared equal to {origin}, but has another model"


def _same(first: Source, second: Source) -> bool:
    if isinstance(first, Model) or isinstance(second, Model):
        return first is second
    return first == second or (
        os.path.exists(first) and os.path.exists(second) and os.path.samefile(first, second)
    )


def _satisfied(model: Model, interface: Interface) -> bool:
    """Whether a model has nothing to change."""
    by_name = dict(zip(model.inputs.names, model.inputs.shapes, strict=True))
    shapes = zip(interface.shapes, model.inputs.shapes, strict=False)
    same = all((by_name.get(name) if name else own) == shape for (name, shape), own in shapes)
    return same and not interface.hidden
