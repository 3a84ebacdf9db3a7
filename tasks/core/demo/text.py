"""What the demo model server says: varied English that is a pure function of a seed.

Each choice is one byte of SHAKE-128 over the seed, and whatever is chosen from is a wheel of 256 places: so
an answer costs a hash and a few microseconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from hashlib import shake_128
from itertools import chain, count, cycle, islice
from operator import getitem
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_T = TypeVar("_T")

LABEL = "(demo text)"
"""Stands in the first sentence of every prose answer."""


class Kind(StrEnum):
    """What a request asks for, as its messages show."""

    SUBTOPICS = "subtopics"
    PROMPTS = "prompts"
    PROSE = "prose"
    JUDGE = "judge"
    COMPARISON = "comparison"
    CHECKS = "checks"


def _wheel(choices: Sequence[_T]) -> tuple[_T, ...]:
    return tuple(islice(cycle(choices), 256))


def _words(text: str) -> tuple[str, ...]:
    return _wheel(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return _wheel([" ".join(phrase.split()) for phrase in text.split(";")])


# Everything that may follow "a" begins with a consonant, so that no article has to be mended.
_ADJECTIVES = _words(
    """barren bitter bold borrowed brass bright brittle broken bronze buried calm candlelit careful cautious
    chalk chilly clever cloudy coastal copper crooked crowded curious damp daring dim distant drifting drowsy
    dusty faded faithful famous fearless feathered fierce flooded forgotten fragile frosty gentle gilded glass
    golden graceful grey half-built hidden hollow humble jagged jealous kindly lantern-lit late leafy lonely
    lopsided lost loyal lucky marble masked mellow merry misty moonlit mossy muddy narrow nervous nimble
    northern paper patched patient plain polished proud quiet rainy restless rough rusty salted scarlet secret
    shabby shallow silent silver slender sleepless snowbound solemn southern steady stern stubborn sunlit
    tangled tender thirsty timid twilit vanished velvet wandering warm watchful weary western wild wooden"""
)
_PEOPLE = _words(
    """baker beekeeper bellringer blacksmith boatbuilder bookbinder botanist bridgekeeper carpenter
    cartographer clockmaker cobbler cook courier curator dancer dentist detective diver doctor drummer farmer
    ferryman fiddler fisherman florist gardener glassblower goldsmith gravedigger grocer harpist hunter
    jeweller juggler kitemaker lamplighter librarian lighthouse-keeper locksmith magistrate mapmaker
    mason mechanic messenger midwife miller miner musician novelist painter pharmacist pilot poet porter
    postman potter printer puppeteer sailor sculptor seamstress shepherd sign-painter singer stonecutter
    surveyor tailor teacher translator traveller watchman weaver widow woodcarver"""
)
_THINGS = _words(
    """almanacs barrels baskets beacons bells blankets boats bottles bridges candles carriages charts chimneys
    clocks coins compasses cradles curtains diaries doorways drums feathers fences ferries fiddles gardens
    gates gloves harps hinges hourglasses journals kettles keys kites ladders lanterns ledgers lenses letters
    lockets looms maps masks medals mirrors mosaics nets notebooks orchards paintings parcels pebbles
    photographs pianos postcards puppets quilts recipes ribbons riddles rings ropes saddles sails scrolls
    seeds shells shutters signposts songs staircases statues stories suitcases tapestries teacups telescopes
    tickets tools towers trains tunnels umbrellas violins wagons walls wells wheels whistles windows"""
)
_PLACES = _words(
    """archives attics bakeries barns bays boatyards canals caravans castles cathedrals caves cellars cities
    cliffs courtyards crossroads deltas deserts docks farms fields fjords foothills forests fortresses
    foundries gorges greenhouses harbours headlands highlands hospitals inns islands kitchens lagoons lakes
    libraries lighthouses markets marshes meadows mills monasteries moors mountains museums observatories
    parishes parlours pastures piers plains ports prairies quarries railways reefs rivers schools shipyards
    shores stables stations suburbs taverns terraces theatres towns valleys villages vineyards workshops"""
)
_IDEAS = _words(
    """ambition ancestry apprenticeship argument arrival balance barter belonging blame bravery celebration
    ceremony chance change charity childhood comedy compromise confidence conscience courage craft curiosity
    danger decay deception departure design devotion discovery disguise doubt economics endurance etiquette
    exile failure faith fame festivals folklore forgiveness fortune freedom friendship generosity gossip
    gratitude grief harvest healing heritage honesty hope hospitality humour hunger identity imitation
    improvisation inheritance invention jealousy journeys justice kinship labour language laughter leadership
    learning legend longing loss loyalty luck maintenance marriage memory mercy migration mischief music
    navigation neglect nostalgia obsession patience politics pride privacy prophecy reconciliation repair
    reputation restoration revenge ritual rivalry romance routine sacrifice secrecy silence solitude
    storytelling strategy superstition survival tactics thrift time trade tradition travel trust truth
    twilight uncertainty vanity weather winter wonder work"""
)
_DID = _words(
    """admired borrowed bought buried carried catalogued cleaned collected copied counted covered delivered
    described discovered dismantled displayed followed gathered guarded hid inherited inspected kept lent lost
    measured mended misplaced moved noticed numbered opened packed painted polished questioned rebuilt
    recovered refused remembered repaired replaced returned sketched sold sorted studied traded unlocked
    unwrapped watched weighed"""
)
_WHEN = _phrases(
    """before the first frost; before the tide turned; when the lamps were lit; while the town slept; long
    after midnight; at the end of summer; on market day; during the longest storm; after the last ferry;
    without telling anyone; with great care; at dawn; between two winters; in plain sight; for the third time;
    as the snow began to fall; until the money ran out; under a borrowed name; for motives of their own; on
    the way home; against all advice; by the light of one candle; since nobody else would; at the worst
    possible hour; a year too late"""
)
_FORMS = _words(
    """ballad chapter dialogue fable folktale letter memoir monologue mystery parable poem portrait profile
    report scene sermon speech story tale travelogue vignette"""
)
_MUST = _phrases(
    """choose between a promise and a rescue; hide what everyone is looking for; win back the trust of a
    rival; finish a task that was begun by someone else; return a gift without giving offence; tell the truth
    to the wrong person; keep a secret for one more night; find the owner of a nameless parcel; settle a
    quarrel between two families; leave home with a single bag; teach a pupil who refuses to learn; sell the
    thing that matters most; forgive a debt that was never spoken of; cross the mountains before winter;
    replace a friend who has vanished; decide whom to warn first; mend what they once broke in anger; prove
    that an old story is true"""
)
# The judge looks for these: they are what makes a demo answer a careful one.
_CAREFUL = _phrases(
    """on closer reading; in other words; for that very reason; by contrast; with that in mind; even so; as a
    consequence; more precisely"""
)
_GOOD = _words("careful clear consistent convincing deliberate measured persuasive precise steady thoughtful")
_POOR = _words("careless flat hurried patchy predictable repetitive shallow sketchy thin vague")
_LISTS = {
    "adjective": _ADJECTIVES, "person": _PEOPLE, "things": _THINGS, "places": _PLACES, "idea": _IDEAS,
    "did": _DID, "when": _WHEN, "form": _FORMS, "must": _MUST, "good": _GOOD, "poor": _POOR,
    "Care": tuple(phrase.capitalize() for phrase in _CAREFUL),
}  # fmt: skip
_SLOT = re.compile(r"\{(" + "|".join(_LISTS) + r")\}")


@dataclass(frozen=True, slots=True)
class _Sentence:
    """A pattern with `%s` for each slot; `{about}` in it stands for what the request is about."""

    pattern: str
    slots: tuple[tuple[str, ...], ...]


def _sentences(*texts: str) -> tuple[_Sentence, ...]:
    return _wheel(
        [_Sentence(_SLOT.sub("%s", text), tuple(_LISTS[n] for n in _SLOT.findall(text))) for text in texts]
    )


_OPENINGS = _sentences(
    f"This {{adjective}} piece {LABEL} begins with {{about}} and the {{person}} who cared for it.",
    f"Every account of {{about}} {LABEL} leads back to one {{adjective}} {{person}} among the {{places}}.",
    f"Among {{adjective}} {{places}} people spoke of {{about}} {LABEL}, and one {{person}} wrote it down.",
    f"What is known of {{about}} {LABEL} was gathered by a {{adjective}} {{person}} {{when}}.",
)
_CAREFUL_MIDDLES = _sentences(
    "{Care}, the {adjective} {person} {did} the {things} {when}, because {idea} asked for nothing less.",
    "{Care}, it was {idea} rather than {idea} that drew the {person} towards the {adjective} {places}.",
    "{Care}, those {adjective} {things} meant more to the {person} than any talk of {idea}.",
)
_MIDDLES = _sentences(
    "The {adjective} {person} {did} the {adjective} {things} {when}, and a {adjective} {person} took note.",
    "Between the {adjective} {places} and the {adjective} {places} there was room for {idea} and for {idea}.",
    "Nobody {did} the {things} {when}, although the {adjective} {person} had asked twice.",
    "A {adjective} {person} spoke of {idea}, then {did} the {things} that the {person} had left behind.",
)
_CLOSINGS = _sentences(
    "So the {adjective} {things} stayed where they were, and {idea} had the last word.",
    "In the end the {person} kept faith with {idea}, and the {adjective} {places} grew quiet again.",
    "That is why the {person} still looks after the {adjective} {things}.",
)
_PLAIN_OPENINGS = _sentences(
    f"This is about {{about}} {LABEL}.",
    f"Here is something on {{about}} {LABEL}.",
    f"There was {{about}} {LABEL}.",
)
_PLAIN_MIDDLES = _sentences(
    "The {person} {did} the {things}.", "It was {adjective} and a bit {adjective} in the {places}.",
    "Then a {adjective} {person} {did} some {things} {when}.", "The {person} liked {idea} and {idea}.",
)  # fmt: skip
_PLAIN_CLOSINGS = _sentences(
    "The {person} went home to the {places}.", "That was all about the {adjective} {things}."
)
_UNKNOWN = _sentences("the {idea} of {places}", "{adjective} {things}", "{idea} and {idea}")
_TOPICS = _sentences(
    "{adjective} {things} and the {idea} of {adjective} {places}",
    "{idea} and {idea} in the {adjective} {places} of the {person}",
    "how {adjective} {things} shaped {idea} among {adjective} {places}",
    "the {person}'s {adjective} {things} as a lesson in {idea} and {idea}",
    "{about}: {adjective} {things}, {adjective} {places} and {idea}",
    "{idea} and the {adjective} {person} in {about}, seen through {things}",
)
_PROMPTS = _sentences(
    "Write a {form} about {about} in which a {adjective} {person} must {must}. Use {adjective} {things}.",
    "In the {adjective} {places}, a {adjective} {person} must {must}. Make it a {form} about {about}.",
    "Describe how a {adjective} {person} {did} the {adjective} {things} {when}, with {about} in view.",
    "Compose a {form} on {about}, told by a {adjective} {person} who {did} the {things} {when}.",
    "A {person} and a {adjective} {person} must {must} {when}. Tell it with {about} and {things}.",
)
_COMMON = {
    Kind.SUBTOPICS: ("A brief history", "Common misunderstandings", "Tools of the trade", "Famous examples"),
    Kind.PROMPTS: (
        "Write a story about a stranger who comes to town.",
        "Describe a journey that changes a friendship.",
        "Write a letter that was never sent.",
        "Tell of a secret that is found in an attic.",
    ),
}
_VERDICTS = {
    True: _sentences(
        "The {good} handling of {about} shows in the {adjective} details.",
        "On {about} the text is {good} and {good} throughout.",
    ),
    False: _sentences(
        "The {poor} handling of {about} leaves the text {poor}.",
        "On {about} the text stays {poor} and {poor}.",
    ),
}
# Twenty equally likely scores each: averages 4.2 and 2.4.
_SCORES = {
    True: _wheel((3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5, 5)),
    False: _wheel((1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 4, 4, 4)),
}
_CAREFUL_ENOUGH = 2
_REFUSALS = (
    f"I'm sorry, but as an AI I cannot generate the text that you have asked for {LABEL}.",
    f"I'm unable to help with that request, though I would be glad to help with another {LABEL}.",
)


def _choices(seed: bytes) -> Iterator[int]:
    """Endless bytes from the seed."""
    return chain.from_iterable(shake_128(seed + b"%d" % block).digest(128) for block in count())


def _write(choices: Iterator[int], about: str, *wheels: tuple[_Sentence, ...]) -> str:
    """One sentence from each wheel."""
    sentences = list(map(getitem, wheels, choices))
    words = tuple(map(getitem, chain.from_iterable([sentence.slots for sentence in sentences]), choices))
    text = " ".join([sentence.pattern for sentence in sentences]) % words
    return text.replace("{about}", about)


def list_items(kind: Kind, about: str, wanted: int, seed: bytes, repeat: float = 0.0) -> list[str]:
    """`wanted` subtopics or prompts about a subject ("" when it is not known).

    They differ from each other, but for the share `repeat` that is taken from a handful of well-known ones.
    """
    sentences, common = (_TOPICS if kind is Kind.SUBTOPICS else _PROMPTS), _COMMON[kind]
    choices = _choices(seed)
    repeats = _choices(b"repeat" + seed) if repeat else None
    named = about if kind is Kind.SUBTOPICS else f'"{about}"'
    items: list[str] = []
    seen: set[str] = set()
    while len(items) < wanted:
        if repeats and (next(repeats) << 8 | next(repeats)) < repeat * 65536:
            items.append(common[next(repeats) % len(common)])
            continue
        text = _write(choices, named if about else _write(choices, "", _UNKNOWN), sentences)
        if text not in seen:
            seen.add(text)
            items.append(text[0].upper() + text[1:])
    return items


def prose(about: str, seed: bytes, *, plain: bool, length: float = 1.0) -> str:
    """Some sentences about a subject: 60 to 180 words, or about half of that when `plain`.

    Args:
        about: The subject.
        seed: What the sentences are chosen by.
        plain: Whether they are short and plain.
        length: How many times as many sentences stand between the first and the last.
    """
    choices = _choices(seed)
    about = about or _write(choices, "", _UNKNOWN)
    if plain:
        middles = (_PLAIN_MIDDLES,) * round(length * (3 + next(choices) % 3))
        return _write(choices, about, _PLAIN_OPENINGS, *middles, _PLAIN_CLOSINGS)
    middles = (_MIDDLES, _CAREFUL_MIDDLES) * round(length * (2 + next(choices) % 2))
    return _write(choices, about, _OPENINGS, *middles, _CLOSINGS)


def refusal(seed: bytes) -> str:
    """A sentence that declines, in words that models use."""
    return _REFUSALS[seed[0] % len(_REFUSALS)]


def _care(text: str) -> int:
    """How often a text says what careful demo prose says."""
    lowered = text.lower()
    return sum(lowered.count(phrase) for phrase in set(_CAREFUL))


def comparison(first: str, second: str, seed: bytes) -> dict[str, object]:
    """Which of two texts is better: the more careful one, else any."""
    one, other = _care(first), _care(second)
    if one == other:
        return {"better": ("A", "B")[seed[0] % 2]}
    return {"better": "A" if one > other else "B"}


def checks(numbers: Sequence[str], judged: str, seed: bytes) -> dict[str, object]:
    """Yes or no to each question: yes for careful demo prose mostly, for anything else sometimes."""
    most = 220 if _care(judged) >= _CAREFUL_ENOUGH else 100
    choices = _choices(seed)
    return {number: "yes" if next(choices) < most else "no" for number in numbers}


def scores(criteria: tuple[str, ...], judged: str, seed: bytes, *, reasons: bool) -> dict[str, object]:
    """A judge's answer: criterion to {score, reasoning}, or to the score alone.

    Careful demo prose in `judged` scores 4.2 on average, anything else 2.4.
    """
    careful = _care(judged) >= _CAREFUL_ENOUGH
    choices = _choices(seed)
    answer: dict[str, object] = {}
    for criterion in criteria:
        score = _SCORES[careful][next(choices)]
        verdict = _write(choices, criterion.replace("_", " "), _VERDICTS[score > 3])  # noqa: PLR2004 - the middle
        answer[criterion] = {"score": score, "reasoning": verdict} if reasons else score
    return answer
