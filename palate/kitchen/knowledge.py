"""What is true in the kitchen world: dishes, ingredients, food safety, and the myths people believe about cooking.

`build(seed, dishes)` gives the same World for the same arguments on every machine. Nothing else in the kitchen decides
what is true: pages, demonstrations and the judge all read it from here.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Diet = Literal["non-vegetarian", "vegetarian", "vegan"]
Nature = Literal["meat", "fish", "animal", "plant"]

DIETS: tuple[Diet, ...] = ("non-vegetarian", "vegetarian", "vegan")
COURSES = ("breakfast", "lunch", "dinner", "dessert", "snack")
ALLERGENS = ("milk", "egg", "nuts", "fish", "shellfish", "wheat", "soy", "sesame")
CUISINES = ("Chinese", "English", "French", "Greek", "Indian", "Italian", "Japanese", "Mexican", "Moroccan", "Thai")
TASTES = ("fresh", "spicy", "smoky", "sweet", "creamy", "rich", "nutty", "mild")
DRINKS = ("mint tea", "green tea", "black coffee", "apple juice", "orange juice", "lemon water", "ginger tea")
SIDES = ("plain rice", "green salad", "roast potatoes", "steamed vegetables", "fresh fruit", "pickled cabbage")
PAIRINGS = DRINKS + SIDES
"""None of these adds an allergen or changes a diet, so that a pairing never spoils a recommendation."""


@dataclass(frozen=True, kw_only=True)
class Ingredient:
    """Something a dish is made of; `french` is the noun alone and `gender` is m, f, mp or fp (p for plural)."""

    name: str
    nature: Nature
    allergens: tuple[str, ...]
    french: str
    gender: Literal["m", "f", "mp", "fp"]

    @property
    def plural(self) -> bool:
        """Whether the English noun is plural ("the eggs are", not "the eggs is")."""
        return self.name.endswith("s") and self.name not in ("molasses",)


@dataclass(frozen=True, kw_only=True)
class Form:
    """A kind of dish ("stew"): how it is cooked, what always goes into it, when it is eaten."""

    name: str
    courses: tuple[str, ...]
    cuisines: tuple[str, ...]
    technique: str
    base: tuple[tuple[str, ...], ...]
    minutes: tuple[int, int]
    mains: tuple[str, ...]
    french: str


@dataclass(frozen=True, kw_only=True)
class Dish:
    """Everything that is true of one dish. `ingredients` start with the main one; `steps` are lower-case orders."""

    name: str
    form: str
    main: str
    accent: str
    ingredients: tuple[str, ...]
    roles: tuple[str, ...]
    diet: Diet
    allergens: tuple[str, ...]
    cuisine: str
    course: str
    minutes: int
    technique: str
    taste: str
    steps: tuple[str, ...]
    pairing: str
    risky: str
    """Ingredient with a food-safety fact of its own, or empty."""
    french: str


@dataclass(frozen=True, kw_only=True)
class SafetyFact:
    """How to make one risky ingredient safe, and what happens otherwise."""

    ingredient: str
    note: str
    reason: str
    degrees: int = 0


@dataclass(frozen=True, kw_only=True)
class Hazard:
    """One food in one situation: may it be eaten, why, and what to do."""

    food: str
    situation: str
    safe: bool
    reason: str
    action: str


@dataclass(frozen=True)
class World:
    """The whole truth."""

    seed: int
    dishes: tuple[Dish, ...]
    ingredients: tuple[Ingredient, ...]
    forms: tuple[Form, ...]
    safety: tuple[SafetyFact, ...]
    hazards: tuple[Hazard, ...]
    myths: tuple[str, ...]
    boasts: tuple[str, ...]

    @cached_property
    def dish(self) -> dict[str, Dish]:
        """Dishes by name."""
        return {dish.name: dish for dish in self.dishes}

    @cached_property
    def ingredient(self) -> dict[str, Ingredient]:
        """Ingredients by name."""
        return {ingredient.name: ingredient for ingredient in self.ingredients}

    @cached_property
    def fact(self) -> dict[str, SafetyFact]:
        """Food-safety facts by ingredient."""
        return {fact.ingredient: fact for fact in self.safety}

    @cached_property
    def hazard(self) -> dict[tuple[str, str], Hazard]:
        """Hazards (and their safe controls) by food and situation."""
        return {(hazard.food, hazard.situation): hazard for hazard in self.hazards}


def listed(names: tuple[str, ...] | list[str], word: str = "and") -> str:
    """Names as people list them.

    >>> listed(["milk", "egg", "soy"])
    'milk, egg and soy'
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"


# name: nature, allergens, French noun, gender
_INGREDIENTS: dict[str, tuple[Nature, str, str, Literal["m", "f", "mp", "fp"]]] = {
    "chicken": ("meat", "", "poulet", "m"),
    "turkey": ("meat", "", "dinde", "f"),
    "beef": ("meat", "", "bœuf", "m"),
    "lamb": ("meat", "", "agneau", "m"),
    "pork": ("meat", "", "porc", "m"),
    "salmon": ("fish", "fish", "saumon", "m"),
    "tuna": ("fish", "fish", "thon", "m"),
    "cod": ("fish", "fish", "cabillaud", "m"),
    "prawns": ("fish", "shellfish", "crevettes", "fp"),
    "crab": ("fish", "shellfish", "crabe", "m"),
    "paneer": ("animal", "milk", "paneer", "m"),
    "tofu": ("plant", "soy", "tofu", "m"),
    "eggs": ("animal", "egg", "œufs", "mp"),
    "chickpeas": ("plant", "", "pois chiches", "mp"),
    "lentils": ("plant", "", "lentilles", "fp"),
    "kidney beans": ("plant", "", "haricots rouges", "mp"),
    "mushrooms": ("plant", "", "champignons", "mp"),
    "potatoes": ("plant", "", "pommes de terre", "fp"),
    "spinach": ("plant", "", "épinards", "mp"),
    "pumpkin": ("plant", "", "citrouille", "f"),
    "tomatoes": ("plant", "", "tomates", "fp"),
    "cauliflower": ("plant", "", "chou-fleur", "m"),
    "carrots": ("plant", "", "carottes", "fp"),
    "onion": ("plant", "", "oignon", "m"),
    "peppers": ("plant", "", "poivrons", "mp"),
    "cabbage": ("plant", "", "chou", "m"),
    "corn": ("plant", "", "maïs", "m"),
    "lemon": ("plant", "", "citron", "m"),
    "ginger": ("plant", "", "gingembre", "m"),
    "garlic": ("plant", "", "ail", "m"),
    "coconut milk": ("plant", "", "lait de coco", "m"),
    "chilli": ("plant", "", "piment", "m"),
    "mint": ("plant", "", "menthe", "f"),
    "basil": ("plant", "", "basilic", "m"),
    "honey": ("animal", "", "miel", "m"),
    "peanuts": ("plant", "nuts", "cacahuètes", "fp"),
    "sesame seeds": ("plant", "sesame", "graines de sésame", "fp"),
    "paprika": ("plant", "", "paprika", "m"),
    "cream": ("animal", "milk", "crème", "f"),
    "cheese": ("animal", "milk", "fromage", "m"),
    "butter": ("animal", "milk", "beurre", "m"),
    "yoghurt": ("animal", "milk", "yaourt", "m"),
    "milk": ("animal", "milk", "lait", "m"),
    "flour": ("plant", "wheat", "farine", "f"),
    "pasta": ("plant", "wheat", "pâtes", "fp"),
    "noodles": ("plant", "wheat", "nouilles", "fp"),
    "bread": ("plant", "wheat", "pain", "m"),
    "rice": ("plant", "", "riz", "m"),
    "oats": ("plant", "", "flocons", "mp"),
    "soy sauce": ("plant", "wheat soy", "sauce soja", "f"),
    "tortillas": ("plant", "", "tortillas", "fp"),
    "oil": ("plant", "", "huile", "f"),
    "stock": ("plant", "", "bouillon", "m"),
    "salt": ("plant", "", "sel", "m"),
    "sugar": ("plant", "", "sucre", "m"),
    "water": ("plant", "", "eau", "f"),
    "apples": ("plant", "", "pommes", "fp"),
    "bananas": ("plant", "", "bananes", "fp"),
    "mango": ("plant", "", "mangue", "f"),
    "strawberries": ("plant", "", "fraises", "fp"),
    "pears": ("plant", "", "poires", "fp"),
    "cherries": ("plant", "", "cerises", "fp"),
    "chocolate": ("animal", "milk", "chocolat", "m"),
    "almonds": ("plant", "nuts", "amandes", "fp"),
    "walnuts": ("plant", "nuts", "noix", "fp"),
    "cinnamon": ("plant", "", "cannelle", "f"),
    "vanilla": ("plant", "", "vanille", "f"),
}

_IN_NAME = {
    "prawns": "prawn", "eggs": "egg", "chickpeas": "chickpea", "lentils": "lentil", "kidney beans": "kidney bean",
    "mushrooms": "mushroom", "potatoes": "potato", "tomatoes": "tomato", "carrots": "carrot", "peppers": "pepper",
    "coconut milk": "coconut", "peanuts": "peanut", "sesame seeds": "sesame", "apples": "apple", "bananas": "banana",
    "strawberries": "strawberry", "pears": "pear", "cherries": "cherry", "almonds": "almond", "walnuts": "walnut",
    "paprika": "paprika",
}  # fmt: skip

_MEAT = ("chicken", "turkey", "beef", "lamb", "pork")
_SEA = ("salmon", "tuna", "cod", "prawns", "crab")
_PULSE = ("paneer", "tofu", "chickpeas", "lentils", "kidney beans")
_GREEN = ("mushrooms", "potatoes", "spinach", "pumpkin", "tomatoes", "cauliflower", "carrots")
_FRUIT = ("apples", "bananas", "mango", "strawberries", "pears", "cherries")
_SAVOURY_ACCENTS = {
    "lemon": "fresh", "mint": "fresh", "basil": "fresh", "ginger": "spicy", "chilli": "spicy", "garlic": "rich",
    "coconut milk": "creamy", "cream": "creamy", "honey": "sweet", "peanuts": "nutty", "sesame seeds": "nutty",
    "paprika": "smoky", "corn": "mild", "mushrooms": "rich", "spinach": "mild", "potatoes": "mild",
}  # fmt: skip
_SWEET_ACCENTS = {
    "cinnamon": "spicy", "vanilla": "mild", "honey": "sweet", "walnuts": "nutty", "almonds": "nutty",
    "lemon": "fresh", "ginger": "spicy", "chocolate": "rich", "coconut milk": "creamy", "mint": "fresh",
}  # fmt: skip
_BESIDE = ("mushrooms", "spinach", "potatoes", "corn")
"""Accents that read as a second main ("paneer and spinach curry"), not as a flavour in front."""

FORMS: tuple[Form, ...] = (
    Form(name="stew", courses=("dinner",), cuisines=("Greek", "Moroccan", "French"), technique="simmer",
         base=(("onion",), ("carrots",), ("stock",), ("oil", "butter")), minutes=(40, 90),
         mains=_MEAT + _PULSE + ("cod", "pumpkin"), french="ragoût"),
    Form(name="curry", courses=("dinner",), cuisines=("Indian", "Thai"), technique="simmer",
         base=(("onion",), ("tomatoes",), ("coconut milk", "yoghurt"), ("oil",)), minutes=(30, 60),
         mains=_MEAT + _PULSE + ("prawns", "salmon", "cauliflower", "potatoes"), french="curry"),
    Form(name="soup", courses=("lunch", "dinner"), cuisines=("French", "Greek", "Japanese"), technique="boil",
         base=(("onion",), ("stock",), ("cream", "oil")), minutes=(20, 45),
         mains=("chicken", "turkey", "prawns", "crab", "lentils", "tofu", *_GREEN), french="soupe"),
    Form(name="salad", courses=("lunch",), cuisines=("Greek", "French", "Moroccan"), technique="mix",
         base=(("tomatoes", "cabbage"), ("peppers",), ("oil", "yoghurt")), minutes=(10, 25),
         mains=("chicken", "tuna", "salmon", "prawns", "chickpeas", "lentils", "tofu", "potatoes", "carrots", "eggs"),
         french="salade"),
    Form(name="pie", courses=("dinner",), cuisines=("English", "French"), technique="bake",
         base=(("flour",), ("butter",), ("onion",)), minutes=(50, 90),
         mains=(*_MEAT, "salmon", "cod", "mushrooms", "potatoes", "pumpkin"), french="tourte"),
    Form(name="pasta", courses=("dinner", "lunch"), cuisines=("Italian",), technique="boil",
         base=(("pasta",), ("tomatoes", "cheese"), ("oil",)), minutes=(20, 40),
         mains=("chicken", "beef", "salmon", "tuna", "prawns", "crab", "lentils", *_GREEN),
         french="pâtes"),
    Form(name="risotto", courses=("dinner",), cuisines=("Italian",), technique="simmer",
         base=(("rice",), ("stock",), ("butter", "oil"), ("onion",)), minutes=(30, 50),
         mains=("chicken", "prawns", "crab", "mushrooms", "pumpkin", "spinach", "tomatoes"),
         french="risotto"),
    Form(name="taco", courses=("lunch", "dinner"), cuisines=("Mexican",), technique="fry",
         base=(("tortillas",), ("peppers",), ("oil",)), minutes=(20, 35),
         mains=(*_MEAT, "cod", "prawns", "kidney beans", "tofu", "cauliflower"),
         french="taco"),
    Form(name="stir-fry", courses=("dinner", "lunch"), cuisines=("Chinese", "Thai", "Japanese"), technique="fry",
         base=(("noodles",), ("soy sauce",), ("cabbage",), ("oil",)), minutes=(15, 30),
         mains=("chicken", "beef", "pork", "prawns", "salmon", "tofu", "mushrooms", "eggs"),
         french="sauté"),
    Form(name="sandwich", courses=("lunch", "snack"), cuisines=("English", "French"), technique="toast",
         base=(("bread",), ("butter", "oil"), ("tomatoes", "cabbage")), minutes=(10, 15),
         mains=("chicken", "turkey", "beef", "tuna", "salmon", "crab", "eggs", "chickpeas", "mushrooms", "tofu"),
         french="sandwich"),
    Form(name="omelette", courses=("breakfast",), cuisines=("French", "Greek"), technique="fry",
         base=(("eggs",), ("butter", "oil"), ("onion",)), minutes=(10, 20),
         mains=("chicken", "turkey", "salmon", "crab", "mushrooms", "spinach", "tomatoes", "potatoes"),
         french="omelette"),
    Form(name="hash", courses=("breakfast",), cuisines=("English", "Mexican"), technique="fry",
         base=(("potatoes",), ("onion",), ("oil",)), minutes=(20, 35),
         mains=("turkey", "beef", "pork", "salmon", "tofu", "kidney beans", "mushrooms", "carrots"),
         french="poêlée"),
    Form(name="skewer", courses=("snack", "dinner"), cuisines=("Greek", "Japanese", "Moroccan"), technique="grill",
         base=(("peppers",), ("onion",), ("oil",)), minutes=(20, 40),
         mains=(*_MEAT, "salmon", "prawns", "paneer", "tofu", "mushrooms"),
         french="brochette"),
    Form(name="fritter", courses=("snack",), cuisines=("Indian", "English", "Thai"), technique="fry",
         base=(("flour",), ("eggs", "water"), ("onion",), ("oil",)), minutes=(20, 35),
         mains=("cod", "crab", "prawns", "paneer", "chickpeas", "lentils", "cauliflower", "spinach"),
         french="beignet"),
    Form(name="dip", courses=("snack",), cuisines=("Greek", "Mexican", "Moroccan"), technique="blend",
         base=(("garlic",), ("oil",), ("yoghurt", "peppers"), ("salt",)), minutes=(10, 20),
         mains=("chickpeas", "kidney beans", "lentils", "carrots", "spinach", "tuna", "tofu", "pumpkin"),
         french="purée"),
    Form(name="bowl", courses=("lunch", "dinner"), cuisines=("Japanese", "Mexican", "Chinese"), technique="steam",
         base=(("rice",), ("carrots", "corn"), ("soy sauce", "oil")), minutes=(20, 40),
         mains=("chicken", "beef", "salmon", "tuna", "prawns", "tofu", "kidney beans", "mushrooms", "eggs"),
         french="bol"),
    Form(name="pancake", courses=("breakfast",), cuisines=("French", "English"), technique="fry",
         base=(("flour",), ("milk", "coconut milk"), ("eggs", "oil"), ("sugar",)), minutes=(20, 30),
         mains=(*_FRUIT, "pumpkin"), french="crêpe"),
    Form(name="porridge", courses=("breakfast",), cuisines=("English", "Chinese"), technique="simmer",
         base=(("oats", "rice"), ("milk", "water"), ("sugar", "salt")), minutes=(10, 25),
         mains=(*_FRUIT, "pumpkin"), french="bouillie"),
    Form(name="cake", courses=("dessert",), cuisines=("English", "French", "Greek"), technique="bake",
         base=(("flour",), ("butter", "oil"), ("eggs",), ("sugar",)), minutes=(50, 80),
         mains=(*_FRUIT, "carrots", "pumpkin"), french="gâteau"),
    Form(name="tart", courses=("dessert",), cuisines=("French", "Italian"), technique="bake",
         base=(("flour",), ("butter", "oil"), ("sugar",)), minutes=(40, 70),
         mains=_FRUIT, french="tarte"),
    Form(name="pudding", courses=("dessert",), cuisines=("English", "Indian", "Thai"), technique="steam",
         base=(("rice",), ("milk", "coconut milk"), ("sugar",)), minutes=(30, 60),
         mains=_FRUIT, french="flan"),
    Form(name="sorbet", courses=("dessert",), cuisines=("Italian", "French"), technique="freeze",
         base=(("sugar",), ("water",), ("salt",)), minutes=(20, 40),
         mains=_FRUIT, french="sorbet"),
    Form(name="muffin", courses=("snack", "breakfast"), cuisines=("English", "Mexican"), technique="bake",
         base=(("flour",), ("eggs", "water"), ("oil", "butter"), ("sugar",)), minutes=(30, 45),
         mains=(*_FRUIT, "carrots", "pumpkin"), french="muffin"),
)  # fmt: skip
SWEET = frozenset({"pancake", "porridge", "cake", "tart", "pudding", "sorbet", "muffin"})

PAST = {
    "simmer": "simmered", "boil": "boiled", "mix": "mixed", "bake": "baked", "fry": "fried", "toast": "toasted",
    "grill": "grilled", "blend": "blended", "steam": "steamed", "freeze": "frozen",
}  # fmt: skip

_DEGREES = {"chicken": 74, "turkey": 74, "beef": 63, "lamb": 63, "pork": 71, "salmon": 63, "tuna": 63, "cod": 63}
_SAFETY = (
    *tuple(
        SafetyFact(
            ingredient=name,
            note=f"cook the {name} to {degrees} degrees",
            reason="bacteria can live inside it" if degrees > 63 else "heat kills what lives in it",
            degrees=degrees,
        )
        for name, degrees in _DEGREES.items()
    ),
    SafetyFact(ingredient="prawns", note="cook the prawns until they are firm", reason="raw shellfish is a risk"),
    SafetyFact(ingredient="crab", note="cook the crab until it is firm", reason="raw shellfish is a risk"),
    SafetyFact(ingredient="eggs", note="cook the eggs until they are firm", reason="raw eggs can make people ill"),
    SafetyFact(
        ingredient="kidney beans", note="boil the kidney beans for ten minutes", reason="raw kidney beans hold a poison"
    ),
    SafetyFact(ingredient="rice", note="cool the rice within an hour", reason="bacteria grow in warm rice"),
)

_COOKED = ("rice", "chicken", "turkey", "beef", "lamb", "pork", "salmon", "cod", "prawns", "soup", "stew", "curry",
           "pasta", "lentils", "eggs", "fish pie")  # fmt: skip
_FROM_THE_SHELF = ("bread", "apples", "bananas", "sugar", "salt", "honey", "oil", "pears", "walnuts", "almonds")
_CHILLED = ("milk", "cream", "yoghurt", "tofu", "crab", "paneer")
_MEATS_RAW = ("chicken", "turkey", "beef", "lamb", "pork", "salmon", "cod", "prawns", "crab")


def _hazards() -> tuple[Hazard, ...]:
    found: list[Hazard] = []

    def add(foods: tuple[str, ...], situation: str, reason: str, action: str, *, safe: bool) -> None:
        found.extend(Hazard(food=food, situation=situation, safe=safe, reason=reason, action=action) for food in foods)

    grow, throw = "bacteria grow in warm food", "throw it away"
    add(_COOKED + _CHILLED, "left out overnight", grow, throw, safe=False)
    add(
        _FROM_THE_SHELF,
        "left out overnight",
        "dry food and whole fruit keep well",
        "keep it in a cool place",
        safe=True,
    )
    add(_COOKED + _CHILLED, "left in a warm car", grow, throw, safe=False)
    add(_COOKED, "kept in the fridge since yesterday", "the cold slows bacteria", "heat it until it steams", safe=True)
    add(_CHILLED, "kept in the fridge since yesterday", "the cold slows bacteria", "smell it first", safe=True)
    add(("bread", "yoghurt", "strawberries", "cream", "pasta", "soup", "rice", "peppers", "tomatoes", "cherries"),
        "with mould on it", "mould goes deeper than you see", throw, safe=False)  # fmt: skip
    add(_MEATS_RAW, "thawed and frozen again", "bacteria wake up when food thaws", throw, safe=False)
    add(_MEATS_RAW, "frozen for a month", "deep cold stops bacteria", "thaw it in the fridge", safe=True)
    add(("chicken", "turkey", "pork"), "still pink inside", "it is not cooked through", "cook it longer", safe=False)
    add(("chicken", "turkey", "pork", "prawns", "crab", "eggs", "kidney beans", "flour"), "raw",
        "raw food like this can make people ill", "cook it first", safe=False)  # fmt: skip
    add(("apples", "carrots", "tomatoes", "peppers", "spinach", "mango", "strawberries", "cabbage", "mint", "pears"),
        "raw", "clean fruit and vegetables are fine", "wash it first", safe=True)  # fmt: skip
    add(("chicken", "milk", "beef", "cod", "soup", "cream", "eggs", "crab", "tofu", "stew"), "that smells bad",
        "a bad smell means it has gone off", throw, safe=False)  # fmt: skip
    return tuple(found)


MYTHS = (
    "searing seals in the juices",
    "oil in the water stops pasta from sticking",
    "salt makes water boil much faster",
    "raw carrots make you see in the dark",
    "washing chicken makes it clean",
    "all the alcohol cooks away",
    "mushrooms must never be washed",
    "a potato takes the salt out of soup",
    "brown eggs are better than white eggs",
    "honey never makes a baby ill",
    "hot food must never go into the fridge",
    "spicy food burns a hole in you",
    "sugar makes all children wild",
    "frozen vegetables have no goodness",
)
BOASTS = (
    "it keeps for a year",
    "it cures every cold",
    "it makes you young again",
    "nobody can cook it wrong",
    "doctors eat it every day",
    "it is the oldest dish in the world",
    "it has no calories",
    "it won a prize in Paris",
)


def build(seed: int, dishes: int) -> World:
    """The world of `seed` with `dishes` dishes, no two of one name."""
    rng = random.Random(f"kitchen world {seed}")  # a string seeds through SHA-512, never through hash()
    ingredients = {
        name: Ingredient(name=name, nature=nature, allergens=tuple(allergens.split()), french=french, gender=gender)
        for name, (nature, allergens, french, gender) in _INGREDIENTS.items()
    }
    found: dict[str, Dish] = {}
    order: list[Form] = []
    while len(found) < dishes:
        if not order:  # every form comes once before any comes again, so that each course and technique has dishes
            order = rng.sample(FORMS, len(FORMS))
        dish = _dish(order.pop(), ingredients, rng)
        found.setdefault(dish.name, dish)
    return World(
        seed=seed,
        dishes=tuple(found.values()),
        ingredients=tuple(ingredients.values()),
        forms=FORMS,
        safety=_SAFETY,
        hazards=_hazards(),
        myths=MYTHS,
        boasts=BOASTS,
    )


def _dish(form: Form, pantry: dict[str, Ingredient], rng: random.Random) -> Dish:
    sweet = form.name in SWEET
    accents = _SWEET_ACCENTS if sweet else _SAVOURY_ACCENTS
    base = [rng.choice(options) for options in form.base]
    main = rng.choice([m for m in form.mains if m not in base])
    accent = rng.choice([a for a in accents if a != main and a not in base])
    names = tuple(dict.fromkeys([main, accent, *base]))
    head, front = _IN_NAME.get(main, main), _IN_NAME.get(accent, accent)
    name = f"{head} and {front} {form.name}" if accent in _BESIDE else f"{front} {head} {form.name}"
    allergens = {a for n in names for a in pantry[n].allergens}
    natures = {pantry[n].nature for n in names}
    diet: Diet = "non-vegetarian" if natures & {"meat", "fish"} else "vegetarian" if "animal" in natures else "vegan"
    course = rng.choice(form.courses)
    risky = next((n for n in names if n in {fact.ingredient for fact in _SAFETY}), "")
    return Dish(
        name=name,
        form=form.name,
        main=main,
        accent=accent,
        ingredients=names,
        roles=("main", "flavour", *("base" for _ in names[2:])),
        diet=diet,
        allergens=tuple(a for a in ALLERGENS if a in allergens),
        cuisine=rng.choice(form.cuisines),
        course=course,
        minutes=rng.randrange(form.minutes[0], form.minutes[1] + 1, 5),
        technique=form.technique,
        taste=accents[accent],
        steps=_steps(form, main, accent, base, rng),
        pairing=rng.choice(DRINKS if sweet or course in ("breakfast", "snack") else PAIRINGS),
        risky=risky,
        french=_french_name(form, pantry[main], pantry[accent]),
    )


def _steps(form: Form, main: str, accent: str, base: list[str], rng: random.Random) -> tuple[str, ...]:
    prepare = {
        "simmer": (f"chop the {main}", f"cook the {main} in the {base[-1]}"),
        "boil": (f"chop the {main}", f"cook the {main} with the {base[0]}"),
        "mix": (f"cut the {main} and the {base[0]}", f"put the {main} in a bowl with the {base[1]}"),
        "bake": (f"mix the {base[0]} and the {base[1]}", f"add the {main}"),
        "fry": (f"chop the {main}", f"mix the {main} with the {base[0]}"),
        "toast": (f"cut the {base[0]}", f"cover the {base[0]} with the {main}"),
        "grill": (f"cut the {main} and the {base[0]}", f"put the {main} on sticks"),
        "blend": (f"cook the {main} until soft", f"put the {main} in a bowl with the {base[0]}"),
        "steam": (f"wash the {base[0]}", f"mix the {base[0]} and the {main}"),
        "freeze": (f"cut the {main}", f"mix the {main} and the {base[0]}"),
    }[form.technique]
    heat = {
        "simmer": "simmer it slowly",
        "boil": "boil it until it is soft",
        "mix": "mix everything well",
        "bake": "bake it in a hot oven",
        "fry": "fry it in a hot pan",
        "toast": "toast it on both sides",
        "grill": "grill it over high heat",
        "blend": "blend it until smooth",
        "steam": "steam it with the lid on",
        "freeze": "freeze it for two hours",
    }[form.technique]
    finish = rng.choice((f"add the {accent} at the end", f"finish with the {accent}", f"stir in the {accent}"))
    if form.technique in ("bake", "freeze", "toast", "fry"):
        return (prepare[0], f"add the {accent}" if prepare[1] == f"add the {main}" else prepare[1], heat, finish)[
            : 4 if prepare[1] != f"add the {main}" else 3
        ]
    return (*prepare, finish, heat) if rng.random() < 0.5 else (*prepare, heat, finish)


def article(ingredient: Ingredient) -> str:
    """The French noun with its definite article: "le poulet", "l'ail", "les œufs"."""
    if ingredient.gender in ("mp", "fp"):
        return f"les {ingredient.french}"
    if ingredient.french[0] in "aeéiouhœ":
        return f"l'{ingredient.french}"
    return f"{'le' if ingredient.gender == 'm' else 'la'} {ingredient.french}"


def with_flavour(ingredient: Ingredient) -> str:
    """The French "with ..." of a dish's name: "au poulet", "à l'ail", "aux œufs", "à la menthe"."""
    noun = article(ingredient)
    if noun.startswith("les "):
        return f"aux {ingredient.french}"
    return f"au {ingredient.french}" if noun.startswith("le ") else f"à {noun}"


def _french_name(form: Form, main: Ingredient, accent: Ingredient) -> str:
    return f"{form.french} {with_flavour(main)} et {with_flavour(accent)}"
