"""Store the English words of the demo corpus: those of every text, those of a topic, and names made of syllables.

Lists are in order of falling frequency. No word is in two of them, so a topical word is evidence for its topic only.
Verbs are in the past tense, and none has another participle; nouns have a regular plural. Names and compounds such as
"snowhouse" are combinations, which gives the corpus a long tail of rare words without long lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product


@dataclass(frozen=True)
class Topic:
    """The words of one topic."""

    people: tuple[str, ...]
    nouns: tuple[str, ...]
    verbs: tuple[str, ...]
    adjectives: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _topic(people: str, nouns: str, verbs: str, adjectives: str) -> Topic:
    return Topic(_words(people), _words(nouns), _words(verbs), _words(adjectives))


TOPICS = {
    "Sports": _topic(
        "player striker goalkeeper coach referee captain defender sprinter cyclist swimmer umpire",
        "game match goal final ball race league team season penalty stadium trophy tournament racket whistle medal "
        "championship pitch marathon relay jersey podium semifinal playoff scoreboard tackle halftime",
        "scored defeated kicked tackled coached headed volleyed blocked dribbled substituted outpaced cheered",
        "unbeaten athletic offside defensive sporting amateur olympic relegated",
    ),
    "Business": _topic(
        "customer investor banker trader shareholder accountant broker entrepreneur executive",
        "market price profit bank company office loan merger share contract budget revenue invoice dividend bond "
        "takeover tariff warehouse portfolio deficit retailer currency payroll stock audit startup franchise",
        "acquired invested financed sold merged borrowed audited exported imported insured outbid leased",
        "quarterly profitable corporate financial bankrupt commercial fiscal wholesale",
    ),
    "Science": _topic(
        "scientist physicist chemist astronomer biologist geologist researcher botanist",
        "experiment discovery laboratory molecule planet telescope theory particle atom fossil comet galaxy "
        "microscope genome enzyme neutron isotope crystal satellite orbit cell protein reactor electron equation "
        "meteor",
        "measured observed discovered calculated simulated magnified dissolved synthesised detected ionised",
        "molecular magnetic experimental cosmic atomic quantum genetic thermal",
    ),
    "Travel": _topic(
        "tourist pilot traveller sailor passenger guide backpacker steward",
        "trip airport train hotel journey map holiday island beach passport suitcase ferry flight cruise visa "
        "harbour souvenir voyage terminal hostel lagoon border itinerary postcard timetable runway cabin safari "
        "campsite yacht",
        "visited booked boarded explored toured crossed sailed navigated docked photographed",
        "tropical coastal scenic overseas alpine remote seaside nomadic",
    ),
    "Food": _topic(
        "chef baker cook waiter butcher diner brewer",
        "meal recipe kitchen dinner cake oven soup restaurant cheese café dessert menu sauce onion pastry noodle "
        "omelette pudding pepper mushroom sandwich dumpling casserole biscuit lentil saucepan lemon crêpe",
        "cooked baked roasted tasted fried seasoned grilled chopped simmered whisked stewed marinated",
        "delicious spicy crispy savoury creamy salted vegan sautéed",
    ),
    "Music": _topic(
        "musician singer drummer pianist violinist guitarist conductor composer cellist",
        "concert band song melody album dance guitar orchestra chorus rhythm piano symphony opera ballad trumpet "
        "cello chord sonata microphone encore lyric quartet harmony rehearsal violin tempo festival",
        "performed composed conducted strummed rehearsed hummed tuned recorded harmonised improvised",
        "acoustic melodic orchestral choral musical operatic rhythmic jazzy",
    ),
    "Health": _topic(
        "doctor nurse surgeon patient dentist therapist pharmacist midwife",
        "hospital disease clinic vaccine symptom medicine fever treatment virus injury allergy infection bandage "
        "prescription headache tablet ambulance ward pulse lung muscle heartbeat wheelchair antibiotic syringe "
        "stethoscope",
        "treated healed diagnosed vaccinated examined cured prescribed bandaged infected disinfected",
        "medical healthy chronic contagious clinical surgical painful feverish",
    ),
    "Law": _topic(
        "judge lawyer prosecutor juror defendant solicitor witness bailiff",
        "court law trial case verdict lawsuit jury crime sentence appeal prison statute tribunal clause testimony "
        "courtroom plea subpoena warrant affidavit settlement bail injunction felony robbery hearing alibi",
        "sued convicted sentenced acquitted prosecuted overturned pardoned indicted arrested subpoenaed",
        "legal guilty criminal judicial civil unlawful innocent constitutional",
    ),
    "Technology": _topic(
        "programmer engineer developer hacker technician blogger",
        "computer phone code software network server program keyboard database password robot laptop browser "
        "processor algorithm router website app compiler chip spreadsheet firewall download printer smartphone "
        "sensor modem touchscreen gadget",
        "programmed installed downloaded encrypted debugged compiled rebooted uploaded automated hacked",
        "digital wireless online virtual robotic electronic programmable portable",
    ),
    "Gardening": _topic(
        "gardener florist beekeeper landscaper farmer forager",
        "garden flower tree plant seed rose tulip lawn hedge compost greenhouse orchard weed shovel petal vine "
        "pumpkin sapling flowerbed trellis bulb daisy shrub rake blossom lavender wheelbarrow beehive",
        "planted watered pruned weeded harvested mowed fertilised raked repotted mulched",
        "leafy floral evergreen shady overgrown perennial thorny fragrant",
    ),
    "Film": _topic(
        "actor actress director screenwriter producer critic projectionist",
        "film movie scene camera script cinema trailer sequel studio premiere comedy documentary screenplay villain "
        "plot soundtrack thriller costume cartoon popcorn blockbuster western cameo stunt closeup prequel",
        "filmed directed screened animated edited dubbed adapted auditioned storyboarded",
        "cinematic dramatic theatrical hilarious scripted fictional suspenseful onscreen",
    ),
    "Education": _topic(
        "teacher pupil student professor tutor lecturer headmaster",
        "school class book classroom lesson exam homework university textbook diploma syllabus essay blackboard "
        "semester scholarship lecture seminar pencil kindergarten campus dormitory quiz thesaurus crayon grade "
        "alphabet timeline",
        "taught studied graded memorised enrolled lectured revised graduated tutored",
        "academic scholarly elementary studious educational literate graduate undergraduate",
    ),
}

PEOPLE = _words("neighbour visitor friend mayor stranger uncle reporter sister brother owner cousin clerk")
VERBS = _words(
    "found kept noticed liked brought wanted left mentioned remembered held carried followed needed bought moved lost "
    "used described opened closed praised"
)
# Adjectives that open a phrase, and nouns that close one: as frequent in every class.
ADJECTIVES = _words(
    "new small old great long red early open high second cold quiet green double round dark broken silver hidden "
    "heavy white bright third narrow empty smooth golden famous simple wide black wooden warm lucky secret blue plain "
    "spare soft lonely gentle steady hollow modern distant clever ancient crowded"
)
NOUNS = _words(
    "house line table street door box letter road window card river wall corner paper story bridge room stone clock "
    "sign chair field picture bag tower bottle coat lamp wheel village drawer basket ladder mirror key blanket fence "
    "bell candle rope bucket pillow ribbon button cushion shelter barrel ticket circle square ladle curtain statue "
    "fountain pocket envelope kettle lantern hammer needle carpet cupboard doorstep tunnel chimney balcony wagon "
    "feather locker magnet parcel poster puzzle shutter sofa staircase stool trunk umbrella vase wallet whisker attic "
    "banner canal cottage dolphin engine flag gallery helmet jacket kitten marble notebook oyster"
)
GIVEN_NAMES = _words(
    "Anna Peter Maria José Emma Omar Zoë Ivan Lucy Björn Aisha Tom Renée Mei Paul Chloé Łukasz Nina Raúl Grace"
)
NUMBERS = _words("two three four five six seven eight nine ten eleven twelve twenty thirty fifty")
YEARS = tuple(str(year) for year in range(2024, 1949, -1))
_STEMS = _words(
    "Al Bar Bel Bran Cal Car Dal Dan El Far Gar Glen Hal Har Hol Ken Kir Lang Lin Mal Mar Mel Mor Nor Os Pem Quin Ray "
    "Ros Sher Stan Thorn Tol Wal War Wes Whit Win Yar Zim"
)
_MIDDLES = ("", "den", "ling", "ber")
_OF_PEOPLE = _words("son man ley low wick mond bert ell ard more kins ett sen dale croft gate grove worth")
_OF_TOWNS = _words("ton ford bury ham port field mouth stead minster haven pool combe")
_FIRST_PARTS = _words(
    "sun rain wind moon snow hill mill sand oak pine lake cloud storm star frost leaf ash clay copper bronze salt "
    "mist moss reed swan crow fox owl hare elk wool silk jade amber"
)
_SECOND_PARTS = _words(
    "house gate path bell stone board field bridge wall lamp stick basket wheel chest post cart boat brush cloth cup "
    "dish hook jar lid mat nest net pole rack ring shed stool tray yard"
)

SURNAMES = tuple(map("".join, product(_STEMS, _MIDDLES, _OF_PEOPLE)))
TOWNS = tuple(map("".join, product(_STEMS, _MIDDLES, _OF_TOWNS)))
COMPOUNDS = tuple(map("".join, product(_FIRST_PARTS, _SECOND_PARTS)))


def subjects(classes: int) -> list[tuple[str, tuple[str, ...]]]:
    """Return the name of each class and its one or two topics: all topics, all pairs of them, then both numbered."""
    plain: list[tuple[str, tuple[str, ...]]] = [(name, (name,)) for name in TOPICS]
    plain += [(" and ".join(pair), pair) for pair in combinations(TOPICS, 2)]
    rounds = [divmod(number, len(plain)) for number in range(classes)]
    return [(f"{plain[i][0]} {n + 1}" if n else plain[i][0], plain[i][1]) for n, i in rounds]


def plural(noun: str) -> str:
    """Return the regular plural of a noun."""
    if noun[-1] == "y" and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    if noun.endswith("z"):
        return f"{noun}zes"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")
