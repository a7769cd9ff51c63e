"""Guests on fibers, through wasmtime's asynchronous C API. Everything that wasmtime can be made to crash by is in here.

A guest calls an import: wasmtime calls `_host_function` on the guest's own stack; it lifts the arguments, *records*
the call and returns; only then is the fiber suspended, and `poll` returns on the main stack. No frame of Python is ever
left on a suspended fiber. Whether the answer is there is asked by wasmtime through a native predicate, `strlen` of a
flag: "" is pending, "\\x01" is ready, so that no Python runs for it. A call of a quick handler is served before the
callback returns: if it could be answered, the fiber is not suspended at all. A call of a blocking handler is recorded
without Python where C could be compiled (calls.c): then the flag is in the fiber's record, and so is the call.

    poll ──▶ fiber runs ──▶ import ──▶ _host_function: call recorded, flag "" ──▶ suspended ──▶ poll answers CALLED
    answer ──▶ written to `results`, which stay valid until then ──▶ flag "\\x01" ──▶ poll again

Kept here: one future at a time on a store; the future is deleted before its store; nothing is polled once done; a
callback never raises. The daemon's signal handlers must not raise either (asyncio's do not).
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Sequence
from ctypes import (
    CDLL,
    CFUNCTYPE,
    POINTER,
    PYFUNCTYPE,
    addressof,
    c_bool,
    c_char_p,
    c_int64,
    c_size_t,
    c_uint8,
    c_uint64,
    c_void_p,
    cast,
    create_string_buffer,
    sizeof,
)
from dataclasses import dataclass
from typing import Any, Final

import wasmtime
from wasmtime import _ffi as ffi
from wasmtime import component as components

from cadenza.kernel.limits import SLICE_FUEL
from cadenza.kernel.wasm import wit
from cadenza.kernel.wasm.calls_unsafe import NativeCalls, new_record, recordable, resume_in_python, set_future
from cadenza.kernel.wasm.engine import new_engine
from cadenza.kernel.wasm.lift_unsafe import Row, lift_row, lift_value
from cadenza.kernel.wasm.lower_unsafe import Failure, Fill, lower_answer, lower_value
from cadenza.kernel.wasm.memory_unsafe import ENTRY, MEMORY, NAME, VAL, discard, native
from cadenza.kernel.wasm.seams import Case, Handler, Handlers, is_blocking, is_quick

# Of one guest. A component's memories are limited one by one, so there is one.
MEMORIES: Final = 1
TABLES: Final = 64
TABLE_ELEMENTS: Final = 1 << 20
INSTANCES: Final = 256

_future_delete = native("wasmtime_call_future_delete", None, c_void_p)
_instantiate = native("wasmtime_component_linker_instantiate_async", *[c_void_p] * 6)
_call = native("wasmtime_component_func_call_async", *[c_void_p] * 4, c_size_t, c_void_p, c_size_t, c_void_p)
_get_function = native("wasmtime_component_instance_get_func", c_bool, *[c_void_p] * 4)
_add_function = native(
    "wasmtime_component_linker_instance_add_func_async", c_void_p, c_void_p, c_char_p, c_size_t, *[c_void_p] * 3)
_yield_every = native("wasmtime_context_fuel_async_yield_interval", c_void_p, c_void_p, c_uint64)
_get_fuel = native("wasmtime_context_get_fuel", c_void_p, c_void_p, c_void_p)
_set_fuel = native("wasmtime_context_set_fuel", c_void_p, c_void_p, c_uint64)
_store_new = native("wasmtime_store_new", *[c_void_p] * 4)
_store_delete = native("wasmtime_store_delete", None, c_void_p)
_store_context = native("wasmtime_store_context", c_void_p, c_void_p)
_store_limiter = native("wasmtime_store_limiter", None, c_void_p, *[c_int64] * 5)

_HOST_FUNCTION = CFUNCTYPE(
    None, c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t, c_void_p, c_void_p)
_continue = struct.Struct("<QQQ").pack_into             # predicate, its argument, finalizer
_STRLEN: Final = cast(CDLL(None).strlen, c_void_p).value
_NEVER: Final = create_string_buffer(1)
_NEVER_ADDRESS: Final = addressof(_NEVER)


@dataclass(frozen=True, slots=True, eq=False)
class Import:
    """One function of the ABI: who handles it, and how its values cross. `answer` and `fail` are None where the
    function has no result, or cannot fail."""

    name: str
    handler: Handler
    quick: bool
    lift: Row
    recorded: Callable[[Any, int], tuple[Any, ...]] | None   # (MEMORY, record) -> (results, *arguments), without Python
    answer: Fill | None
    fail: Fill | None


class Step(enum.Enum):
    """How one poll of a fiber ended."""

    CALLED = "called"        # `call` is set, and waits for `answer` or `fail`
    SPENT = "spent"          # used up a slice of fuel
    STARTED = "started"      # instantiated; poll again
    DONE = "done"            # `error` or `value` is set


class Host:
    """The engine, and the linker with every import that has a handler. Lives as long as the runtime."""

    def __init__(self, abi: wit.Abi, handlers: Handlers, native: NativeCalls | None = None) -> None:
        """`native`: what records calls of blocking handlers, if anything does."""
        self.imports: list[Any] = [None]           # by the number in a fiber's record
        self._native = native
        make = native.resume if native is not None else resume_in_python
        self.resume, self.resume_released = make(PYFUNCTYPE), make(CFUNCTYPE)
        self.engine = new_engine()
        self.linker = components.Linker(self.engine)
        self._callbacks: list[Any] = []
        with self.linker.root() as root:
            for interface, functions in abi.functions.items():
                provided = handlers.get(wit.plain_name(interface), {})
                with root.add_instance(interface) as instance:
                    for name, function in functions.items():
                        if name in provided:
                            self._define(instance, name, function, provided[name])

    def _define(self, instance: Any, name: str, function: wit.Function, handler: Handler) -> None:
        lift = lift_row(tuple(type_ for _, type_ in function.parameters))
        recorded = recordable(function) if self._native is not None and is_blocking(handler) else None
        import_ = Import(name, handler, is_quick(handler), lift, recorded, *lower_answer(function))
        if self._native is not None and recorded is not None:
            self.imports.append(import_)
            callback, environment = self._native.record, self._native.environment(len(self.imports) - 1)
        else:
            self._callbacks.append(_HOST_FUNCTION(_host_function(import_)))
            callback, environment = cast(self._callbacks[-1], c_void_p).value, None
        _check(_add_function(_address(instance.ptr()), name.encode(), len(name.encode()), callback, environment, None))


def _host_function(import_: Import) -> Callable[..., None]:
    lift, quick = import_.lift, import_.quick

    def call(_env: int, context: int, _type: int, arguments: int, _count: int, results: int, _results: int,
             _error: int, continuation: int) -> None:
        try:
            fiber = _fibers[context]
            fiber.arguments = lift(arguments or 0)
            fiber.call = import_
            fiber.results = results
            MEMORY[fiber.flag_address] = 0
            _continue(MEMORY, continuation, _STRLEN, fiber.flag_address, 0)
            if quick and fiber.calls_left:
                fiber.calls_left -= 1
                fiber.serving = True
                fiber.serve()
                fiber.serving = False
        except BaseException as error:  # noqa: BLE001 - an exception that left here would abort the process
            _continue(MEMORY, continuation, _STRLEN, _NEVER_ADDRESS, 0)
            fiber = _fibers[context]
            fiber.call, fiber.serving, fiber.fault = None, False, error
    return call


class Fiber:
    """One instance of a component, running one of its exports. Not safe for threads: one at a time.

    `call` and `arguments`: what the guest asks, until it is answered. `serve` is called on the guest's own stack when a
    quick handler is asked, at most `calls_left` times: it answers or leaves the call as it is; `serving` meanwhile.
    `error`: why it trapped; `value`: what the export gave.
    """

    # Slots: a thousand guests take turns, and what one of them touches must be fetched from far each time.
    __slots__ = ("_component", "_context", "_error_pointer", "_export", "_function", "_future", "_host",
                 "_instance", "_record", "_result", "_store", "arguments", "call", "calls_left", "error", "fault",
                 "flag_address", "results", "serve", "serving", "started", "value")

    def __init__(self, host: Host, component: Any, export: Any, memory_bytes: int, fuel: int) -> None:
        """`export`: an ExportIndex of a function `func() -> result<_, string>`."""
        self.call: Import | None = None
        self.arguments: Sequence[Any] = ()
        self.calls_left = 0
        self.serve: Callable[[], object] = _gone
        self.serving = False
        self.fault: BaseException | None = None
        self.error = ""
        self.value: Case | None = None
        self.results = 0
        self._record = new_record()
        self.flag_address = addressof(self._record)          # and of the record: the flag is its first byte
        self._export, self._component, self._host = export, component, host
        self._instance, self._function = ffi.wasmtime_component_instance_t(), ffi.wasmtime_component_func_t()
        self._error_pointer, self._result = c_void_p(), (c_uint8 * VAL)()
        self._store: int = _store_new(_address(host.engine.ptr()), self.flag_address, None)
        self._context: int = _store_context(self._store)
        _store_limiter(self._store, memory_bytes, TABLE_ELEMENTS, INSTANCES, TABLES, MEMORIES)
        _set_fuel(self._context, fuel)
        self.slice(SLICE_FUEL)
        _fibers[self._context] = self
        self.started = False                 # whether it has been instantiated
        self._begin(_instantiate(_address(host.linker.ptr()), self._context, _address(component.ptr()),
                                 addressof(self._instance), addressof(self._error_pointer)))

    def _begin(self, future: int) -> None:
        self._future = future
        set_future(self.flag_address, future)

    def slice(self, fuel: int) -> None:
        """How much fuel the guest may use before a poll answers SPENT."""
        _check(_yield_every(self._context, fuel))

    def poll(self) -> Step:
        """Runs the guest until it calls, has used a slice of fuel, or is done. Holds the GIL."""
        return self._polled(self._host.resume(self.flag_address if self._future else _gone()))

    def poll_released(self) -> Step:
        """The same without the GIL, for another thread: no handler is asked."""
        self.calls_left = 0
        return self._polled(self._host.resume_released(self.flag_address if self._future else _gone()))

    def _polled(self, number: int) -> Step:
        """`number`: as `Resume` answers it."""
        if number > 0:
            call = self.call = self._host.imports[number]
            self.results, *self.arguments = call.recorded(MEMORY, self.flag_address)
            return Step.CALLED
        if number < 0:
            return self._done()
        return Step.CALLED if self.call is not None else self._spent()

    def _spent(self) -> Step:
        return self._failed(f"a call could not be read: {self.fault!r}") if self.fault else Step.SPENT

    def _done(self) -> Step:
        self._end_future()
        if self._error_pointer.value:
            return self._failed(_message(self._error_pointer.value))
        if self.started:
            self.value = _lift_entry(addressof(self._result))
            discard(addressof(self._result))
            return Step.DONE
        self.started = True
        if not _get_function(addressof(self._instance), self._context, _address(self._export.ptr()),
                             addressof(self._function)):
            return self._failed("the export is not a function")
        self._begin(_call(addressof(self._function), self._context, None, 0, addressof(self._result), 1,
                          addressof(self._error_pointer)))
        return Step.STARTED

    def _failed(self, error: str) -> Step:
        self._end_future()
        self.error = error
        return Step.DONE

    def answer(self, value: Any) -> None:
        """Answers `call`, with a `Failure` only where the function can fail. Raises what a value of a wrong shape does;
        the call is then still to be answered."""
        call = self.call
        assert call is not None
        write = call.fail if type(value) is Failure else call.answer
        try:
            if write is not None:
                write(self.results, value)
        except BaseException:
            discard(self.results)
            raise
        self.call = None
        MEMORY[self.flag_address] = 1

    @property
    def fuel_left(self) -> int:
        """Of the fuel it was given; 0 when closed."""
        left = c_uint64()
        if self._store:
            _check(_get_fuel(self._context, addressof(left)))
        return left.value

    def _end_future(self) -> None:
        if self._future:
            _future_delete(self._future)
            self._begin(0)

    def close(self) -> None:
        """Unwinds the guest wherever it is and frees it. Idempotent. Never while `poll` runs, so never while
        `serving`."""
        if self._store:
            self._end_future()
            del _fibers[self._context]
            _store_delete(self._store)
            self._store, self.serve = 0, _gone


_fibers: Final[dict[int, Fiber]] = {}
_lift_entry: Final = lift_value(wit.Result(None, wit.Scalar("string")))


def _gone() -> int:
    raise RuntimeError("a fiber that is done or closed was polled")


def living() -> int:
    """Fibers that were not closed, in this process."""
    return len(_fibers)


def _address(pointer: Any) -> int | None:
    return cast(pointer, c_void_p).value


def _message(error: int) -> str:
    return str(wasmtime.WasmtimeError._from_ptr(cast(error, POINTER(ffi.wasmtime_error_t))))


def _check(error: int | None) -> None:
    if error:
        raise RuntimeError(_message(error))


def _self_test() -> None:
    """The layout that is assumed here, against the library that is loaded. Raises RuntimeError."""
    sizes = {ffi.wasmtime_component_val_t: VAL, ffi.wasmtime_component_valrecord_entry_t: ENTRY, ffi.wasm_name_t: NAME,
             ffi.wasmtime_async_continuation_t: 24, ffi.wasmtime_component_valkind_t: 1, c_void_p: 8}
    wrong = [type_.__name__ for type_, size in sizes.items() if sizeof(type_) != size]
    error = wit.Record("error", (("errno", wit.Enum("errno", ("a", "b"))), ("message", wit.Scalar("string"))))
    probe = wit.Result(wit.Option(wit.TupleOf((wit.Scalar("f32"), wit.ListOf(wit.Scalar("u16"))))), error)
    room = (c_uint8 * VAL)()
    for value in (Case("ok", None), Case("ok", (0.5, [1, 2])), Case("err", ("b", "é"))):
        failure = Failure(*value.value) if value.name == "err" else value.value
        lower_value(probe)(addressof(room), Case(value.name, failure))
        name, found = lift_value(probe)(addressof(room))
        if (name, found and (found[0], list(found[1]) if name == "ok" else found[1])) != value:
            wrong.append(repr(value))
        discard(addressof(room))
    if wrong:
        raise RuntimeError(f"wasmtime's library does not lay out values as expected: {wrong}; install wasmtime==50.0.1")


_self_test()
