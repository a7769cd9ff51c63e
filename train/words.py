"""The closed lists of words from which the world is put together."""

from __future__ import annotations


def listed(text: str) -> list[str]:
    """The words of a text that are set apart by spaces or line breaks."""
    return text.split()


COLORS = listed("""
    red blue green yellow black white grey brown pink purple orange silver golden scarlet violet crimson azure
    ivory amber copper teal olive beige turquoise
""")
NOUNS = listed("""
    kite lamp drum boat clock mirror basket ladder candle bottle hammer pillow blanket kettle saddle trumpet
    violin hat scarf coat ring coin map book letter pencil brush bucket wheel rope sail tent chair table stool
    bench carpet curtain teapot spoon plate bowl knife jar key lock bell whistle flute guitar piano statue
    painting puppet ball shovel axe umbrella envelope apron oar anchor
""")
JOBS = listed("""
    baker painter doctor teacher farmer pilot sailor tailor singer writer builder plumber miller fisher hunter
    weaver carpenter gardener nurse lawyer judge cook barber driver potter smith mason miner dancer drummer
    actor poet editor printer jeweller butcher grocer dentist surgeon chemist engineer architect astronomer
    librarian shepherd beekeeper clerk guard porter waiter
""")
FLAVOURS = listed("""
    plum apple pear cherry lemon onion carrot potato pumpkin mushroom cheese honey pepper garlic lentil bean
    tomato cabbage spinach walnut almond ginger barley rice fig mango coconut salmon chicken turnip
""")
DISHES = listed("""
    soup pie cake bread stew salad pudding curry tart pancakes dumplings noodles jam porridge juice
""")
ROOMS = listed("""
    kitchen attic cellar garden hall library garage bedroom bathroom office workshop stable barn shed tower
    chapel pantry studio corridor balcony
""")
GOODS = listed("""
    apples pears plums coins stones pens books cards shells eggs cakes tickets stamps buttons marbles candles
    nails bottles letters flowers seeds nuts keys ropes boxes beads cups spoons hats maps
""")
CONDITIONS = listed("rain snow fog wind sun hail cloud drizzle thunder mist sleet haze")
DEGREES_OF = listed("""
    light heavy thick thin strong weak bright dull soft hard sudden steady distant morning evening
""")
WORDS = listed("""
    apple river stone cloud tiger lemon window garden silver music orange table pencil forest island bridge
    candle dragon engine flower guitar hammer jacket kitten ladder mirror needle ocean paper queen rabbit spider
    train umbrella valley water yellow zebra anchor button castle desert eagle feather ghost honey insect jungle
    kettle lion mountain night onion piano quilt rocket snow thunder uncle violin wolf zero arrow bottle camel
    dance earth fire grass house iron juice king leaf moon nest olive plant rain sand tree voice wheel bread
    chair dream field glass horse light market number owl pepper road ship tower visitor winter branch coat door
    frog gold hill key lamp milk nose pearl rope star tooth vase wagon
""")
REAL_NAMES = listed("""
    Mara Ivo Anna Ben Carla David Elena Felix Greta Hugo Irene Jonas Karin Leo Maria Nora Oscar Paula Quentin
    Rosa Simon Tara Ulla Victor Wanda Xenia Yusuf Zoe Alice Bob Clara Dora Emma Frank George Helen Isaac Julia
    Kevin Laura Martin Nina Olga Peter Rita Samuel Tom Ursula Vera Walter Amir Bella Chen Diego Farah Hana Ines
    Jamal Kofi Lina Mei Omar Priya Ravi Sofia Thomas Michael Sarah James Robert Linda Susan Daniel Sandra
    Christopher Elizabeth
""")
REAL_CITIES = listed("""
    Oslo Rome Paris Berlin London Madrid Lisbon Vienna Prague Warsaw Athens Dublin Geneva Zurich Turin Milan
    Naples Seville Porto Lyon Bergen Malmo Tampere Riga Tallinn Vilnius Krakow Gdansk Budapest Sofia Cairo Tunis
    Lagos Nairobi Accra Dakar Lima Quito Bogota Santiago Havana Toronto Boston Chicago Denver Seattle Dallas
    Tokyo Osaka Kyoto Seoul Beijing Shanghai Delhi Mumbai Hanoi Manila Jakarta Sydney Perth Auckland Moscow Kiev
    Istanbul Ankara Tehran Stockholm Copenhagen Helsinki Amsterdam Brussels Hamburg Munich Cologne Bristol
    Glasgow Marseille Barcelona
""")
ONSETS = listed("b d f g h j k l m n p r s t v w z sh ch th st tr br kr")
VOWELS = listed("a a a e e e i i i o o o u u ia ei")
ACCENTED = listed("á é í ó ú ä ö ü å ø è ñ ç")
CODAS = listed("n r l s k")
LETTERS = "eeeeaaaaiiiioooouuulllnnnrrrsssttthhhddccmmppbbffggkkvvwwyyjxzq"
"""Each as often as a name may have it."""
VERBS = listed("""
    find book count check send buy sell read list show rent order move copy plan track rate open close fetch save
    sign print share mark name pay lend hold draw
""")
OBJECTS = listed("""
    hotel table room train flight ticket boat lamp letter parcel meeting invoice report score menu song film game
    bill bed car bike taxi ferry tour park shop bank farm mill club team class exam course lesson prize medal budget
    loan contract permit licence patent recipe garden museum concert parade harvest cargo signal sensor server backup
    archive record channel route market auction
""")
ARGUMENTS = listed("""
    city day hour guest size price page level code weight street floor seat side zone user kind unit door lane month
    owner host speed depth width length limit grade colour region topic
""")
