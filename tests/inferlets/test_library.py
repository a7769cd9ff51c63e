"""Modules as files of the real system: what the bundled model says over them, who computes them, who may read them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .serving import Serving

pytestmark = pytest.mark.slow

BEGIN = '''
import asyncio, json
import cadenza
from prompt_modules import *
from prompt_modules.library import Library

FACTS = """<schema name="facts"><system>Facts: <module name="mara">Mara lives in Oslo. </module>
<module name="ivo">Ivo keeps <parameter name="what" length="12" default="a red kite"/>. </module>
<module name="tara">Tara likes plum soup. </module></system>
<scaffold modules="mara tara"/></schema>""".replace("\\n", "")

def asked(imports, question="What does Ivo keep?"):
    return f'<prompt schema="facts">{imports}<user>{question}</user></prompt>'

async def logits(library, prompt, policy, packed=False):
    """Of the token after the prompt; and the report."""
    async with await library.context(prompt, Policy.named(policy, packed)) as context:
        plan = context.plan
        done = await cadenza.forward(context.file, plan.tokens, positions=plan.positions,
                                     probes=[(len(plan.tokens) - 1, cadenza.Logits())])
        return done.probes[0], context.report

def far(one, other):
    return max(abs(a - b) for a, b in zip(one, other, strict=True))
'''
CLOSE = 1e-3     # of logits: float32, in another order


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    served = Serving(tmp_path_factory.mktemp("state"))
    yield served
    served.close()


def test_exact_policies_give_the_logits_of_a_full_prefill(serving: Serving) -> None:
    [found] = serving.answers(BEGIN + '''
async def main(args):
    library = Library(FACTS, "exact")
    found = []
    for imports in ("<mara/><ivo/>", "<tara/><ivo what='a'/>", "<ivo/><mara/><tara/>"):
        for packed in (False, True):
            full, _ = await logits(library, asked(imports), "full", packed)
            for policy in ("prefix", "epic-99", "rooted epic-99"):
                other, report = await logits(library, asked(imports), policy, packed)
                found.append((far(full, other), report.exactness, report.reused_tokens > 0))
    return found
''')
    assert all(distance < CLOSE and exactness == "exact" for distance, exactness, _ in found), found
    assert all(reused for _, _, reused in found)


def test_a_rooted_module_right_after_what_is_always_there_is_exact(serving: Serving) -> None:
    [found] = serving.answers(BEGIN + '''
async def main(args):
    library = Library(FACTS, "rooted")
    await library.encode(Policy("modules", rooted=True))
    full, _ = await logits(library, asked("<mara/>"), "full")
    alone, report = await logits(library, asked("<mara/>"), "modules")
    rooted, exact = await logits(library, asked("<mara/>"), "rooted modules")
    return [far(full, alone), report.exactness, far(full, rooted), exact.exactness, exact.encoded_tokens,
            exact.reused_tokens == report.reused_tokens]
''')
    assert found[0] > CLOSE > found[2], found
    assert found[1:2] + found[3:] == ["approximate", "exact", 0, True]


REFERENCE = '''
async def reference(library, prompt, packed):
    """A full prefill in which the tokens of each piece see that piece only: `visible` ranges over the tokens in their
    order of position."""
    plan = library.plan(prompt, Policy("modules", packed=packed))
    tokens = sorted([(at, token, number) for number, view in enumerate(plan.views)
                     for at, token in zip(view.positions, view.tokens)]
                    + [(at, token, None) for at, token in zip(plan.positions, plan.tokens)])
    pieces = [None if number is None else plan.views[number].piece for _, _, number in tokens]
    visible = [cadenza.Visible(row, at, 1) for row, piece in enumerate(pieces) if piece is not None
               for at in range(row + 1) if pieces[at] == piece]
    file = cadenza.File.create()
    done = await cadenza.forward(file, [token for _, token, _ in tokens], positions=[at for at, _, _ in tokens],
                                 visible=visible, probes=[(len(tokens) - 1, cadenza.Logits())])
    return done.probes[0]
'''


@pytest.mark.parametrize("packed", [False, True])
def test_modules_read_are_modules_that_see_themselves_only(serving: Serving, packed: bool) -> None:
    [found] = serving.answers(BEGIN + REFERENCE + '''
async def main(args):
    library = Library("""<schema name="facts"><module name="mara">Mara lives in Oslo. </module>
        <module name="ivo">Ivo keeps a red kite. </module><module name="tara">Tara likes plum soup. </module>
        </schema>""".replace("\\n        ", ""), "alone")
    found = []
    for imports in ("<tara/><mara/>", "<tara/>"):
        prompt = f"<prompt schema='facts'>{imports}Ivo keeps</prompt>"
        one, report = await logits(library, prompt, "modules", args.packed)
        found.append((far(one, await reference(library, prompt, args.packed)), report.exactness))
        full, _ = await logits(library, prompt, "full", args.packed)
        found.append((far(one, full), report.exactness))
    return found
''', packed=packed)
    assert [distance < CLOSE for distance, _ in found] == [True, False, True, False], found
    assert {exactness for _, exactness in found} == {"approximate"}


def test_each_module_is_computed_once_by_whoever_comes_first(serving: Serving) -> None:
    main = BEGIN + '''
async def main(args):
    library = Library(FACTS, "once")
    await asyncio.gather(library.encode(), library.encode())
    async with await library.context(asked("<mara/><ivo/>")) as context:
        said = await context.generate(max_tokens=30).text()
    return library._shelf.computed_tokens, said, context.report.encoded_tokens, len(cadenza.kv.list_directory("once"))
'''
    found = serving.answers(main, at_once=4)
    computed = sorted(tokens for tokens, *_ in found)
    assert computed[-1] > 0
    assert sum(computed) == serving.answers(main.replace('"once"', '"again"'))[0][0]
    assert [(said, encoded, files) for _, said, encoded, files in found] == [(found[0][1], 0, 5)] * 4
    assert serving.answers(main)[0][0] == 0


def test_many_programs_hold_a_module_once(serving: Serving) -> None:
    [pages] = serving.answers(BEGIN + '''
async def main(args):
    schema = Schema("long", [Module("a", "Mara lives in Oslo. " * 60)])
    library = Library(schema, "held")
    await library.encode()
    contexts = [await library.context(Prompt("long", [Import("a"), "Ivo"])) for _ in range(8)]
    return [(status.pages, status.shared_pages) for status in (context.file.status() for context in contexts)]
''')
    assert all(held == shared > 10 for held, shared in pages), pages


def test_what_is_shared_serves_other_users_and_what_is_forged_does_not(serving: Serving) -> None:
    ask = BEGIN + '''
async def main(args):
    library = Library(FACTS, "/shared/facts")
    async with await library.context(asked("<ivo/>")) as context:
        return context.report.encoded_tokens, await context.generate(max_tokens=30).text()
'''
    forge = BEGIN + '''
async def main(args):
    """Puts a file in the place of the module's: its tokens at its positions, but of other states."""
    library = Library(FACTS)
    piece = library.layout.modules["ivo"].piece
    file = cadenza.File.create()
    lie = cadenza.model.tokenize("Ivo keeps a blue drum. ")
    with cadenza.File.create() as other:
        await cadenza.forward(other, lie)
        await cadenza.forward(file, piece.tokens, positions=piece.positions, reads=[other])
    file.link(f"/shared/forged/{piece.digest(cadenza.model.facts().fingerprint)}")
    return file.tokens() == list(piece.tokens)
'''
    [(encoded, said)] = serving.answers(ask, user="ada")
    assert encoded > 0
    assert serving.answers(ask, user="bob") == [[0, said]]
    assert serving.answers(forge, user="ada") == [True]
    assert serving.answers(ask.replace("/facts", "/forged"), user="bob") == [[encoded, said]]


def test_a_home_is_ones_own(serving: Serving) -> None:
    main = BEGIN + '''
async def main(args):
    return await Library(FACTS, args.folder).encode()
'''
    [first] = serving.answers(main, user="ada", folder="mine")
    assert serving.answers(main, user="bob", folder="mine") == [first]
    assert serving.answers(main, user="ada", folder="mine") == [0]


def test_a_conversation_goes_on_over_modules_and_their_forks(serving: Serving) -> None:
    [found] = serving.answers(BEGIN + '''
async def answer(context, question):
    async with context.fork() as fork:
        fork.user(question)
        said = await fork.generate(max_tokens=30).text()
        fork.user("Where does Mara live?")
        return [said, await fork.generate(max_tokens=30).text(), fork.text]

async def main(args):
    library = Library(FACTS, "talk")
    prompt = '<prompt schema="facts"><mara/><ivo/><tara/></prompt>'
    async with await library.context(prompt, Policy("epic", 4, packed=True), answer=False) as context:
        await context.prefill()
        return await asyncio.gather(*(answer(context, f"What does {name}?") for name in ("Ivo keep", "Tara like")))
''')
    facts = "<|begin|><|system|>Facts: Mara lives in Oslo. Ivo keeps a red kite. Tara likes plum soup. <|end|>"
    after = "<|end|><|user|>Where does Mara live?<|end|><|assistant|>"
    for (first, second, text), asked in zip(found, ("Ivo keep", "Tara like"), strict=True):
        assert text == f"{facts}<|user|>What does {asked}?<|end|><|assistant|>{first}{after}{second}<|end|>"
        assert all((first, second))


def test_a_durable_module_outlives_the_daemon(serving: Serving) -> None:
    main = BEGIN + '''
async def main(args):
    return await Library(FACTS, args.folder, durable=args.durable).encode()
'''
    [first] = serving.answers(main, folder="kept", durable=True)
    [volatile] = serving.answers(main, folder="lost", durable=False)
    serving.restart()
    assert (first, serving.answers(main, folder="kept", durable=True)) == (volatile, [0])
    assert serving.answers(main, folder="lost", durable=False) == [volatile]
