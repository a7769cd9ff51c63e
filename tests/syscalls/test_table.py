"""Every function of the ABI has a handler that takes what it is given."""

from __future__ import annotations

import inspect

from .desk import FUNCTIONS, Desk, in_loop


@in_loop
async def test_every_function_of_the_wit_has_a_handler_and_no_other() -> None:
    async with Desk() as desk:
        offered = {interface: set(functions) for interface, functions in desk.handlers.items()}
        declared = {interface: set(functions) for interface, functions in FUNCTIONS.items() if functions}
        assert offered == declared


@in_loop
async def test_every_handler_takes_the_process_and_the_parameters() -> None:
    async with Desk() as desk:
        for interface, functions in FUNCTIONS.items():
            for name, type_ in functions.items():
                taken = list(inspect.signature(desk.handlers[interface][name]).parameters)
                assert taken[0] == "process"
                assert len(taken) == 1 + len(type_.parameters), f"{interface}.{name}"
