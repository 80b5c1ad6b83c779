"""The word lists the corpus is written from; plain data, written for this project, no text of others.

A category says what its businesses are called (`types`), what they sell (`plurals`, `singles`: heads of a noun phrase)
and what people ask for (`topics`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Category:
    """One line of business, as word lists."""

    types: tuple[str, ...]
    plurals: tuple[str, ...]
    singles: tuple[str, ...]
    topics: tuple[str, ...]


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _category(types: str, plurals: str, singles: str, topics: str) -> Category:
    return Category(_split(types), _split(plurals), _split(singles), _split(topics))


CATEGORIES: dict[str, Category] = {
    "airline": _category(
        "Airlines, Airways, Air, Jets, Wings, Aviation",
        "flights, fares, seats, routes, connections, weekend flights, charter flights, departures",
        "flight, airline, charter flight, seat sale, flight pass",
        "vacations in PLACE, flights to PLACE, trips to PLACE, a holiday in PLACE, a weekend in PLACE, travel to PLACE",
    ),
    "hotel": _category(
        "Resort, Hotel, Inn, Lodge, Suites, Retreat, Guesthouse, Villas, Hostel, Resorts",
        "rooms, suites, cabins, villas, cottages, bungalows, ocean views, garden rooms, apartments",
        "resort, hotel, inn, lodge, retreat, guesthouse, villa, hideaway, beach house",
        "vacations in PLACE, hotels in PLACE, a place to stay in PLACE, a weekend in PLACE, a honeymoon in PLACE, rooms in PLACE",
    ),
    "tours": _category(
        "Tours, Travel, Expeditions, Trails, Safaris, Journeys, Adventures, Voyages",
        "tours, day trips, boat trips, guided walks, excursions, safaris, city tours, hikes",
        "tour, boat trip, guided walk, day trip, safari, walking tour",
        "vacations in PLACE, things to do in PLACE, a trip to PLACE, sightseeing in PLACE, family trips, adventure travel",
    ),
    "cars": _category(
        "Rentals, Car Hire, Motors, Wheels, Drive, Cars, Autos",
        "rental cars, cars, vans, convertibles, campers, electric cars, pickups, scooters",
        "rental car, camper, compact car, convertible, road trip deal, van",
        "car rental in PLACE, a road trip through PLACE, rental cars, a family car, an electric car, cars for a weekend",
    ),
    "cruise": _category(
        "Cruises, Lines, Sailing, Yachts, Marine, Ferries",
        "cruises, ferry rides, sailing trips, island cruises, river cruises, yachts, crossings",
        "cruise, sailing trip, river cruise, ferry ride, yacht",
        "cruises around PLACE, a trip by sea, island hopping, a river trip, sailing holidays, vacations in PLACE",
    ),
    "restaurant": _category(
        "Kitchen, Bistro, Grill, Diner, Tavern, Table, Eatery, Cantina, Brasserie, Pizzeria",
        "dinners, pizzas, noodles, burgers, tacos, tasting menus, lunches, steaks, curries, dumplings",
        "dinner, tasting menu, brunch, lunch menu, seafood platter, rooftop table",
        "dinner in PLACE, restaurants in PLACE, a birthday dinner, lunch with friends, a date night, places to eat",
    ),
    "coffee": _category(
        "Coffee, Roasters, Cafe, Espresso, Tea House, Brew, Teas",
        "coffee beans, espresso drinks, teas, cold brews, lattes, pastries, roasts",
        "coffee, espresso, latte, morning roast, cup of tea, house blend",
        "good coffee, coffee beans, a morning coffee, tea for two, a quiet cafe, coffee in PLACE",
    ),
    "bakery": _category(
        "Bakery, Breads, Cakes, Patisserie, Oven, Sweets, Chocolates",
        "cakes, breads, croissants, muffins, cookies, pies, rolls, tarts, chocolates, cupcakes",
        "cake, wedding cake, loaf, apple pie, birthday cake, box of chocolates",
        "a birthday cake, fresh bread, wedding cakes, sweets for a party, a dessert, breakfast in PLACE",
    ),
    "grocery": _category(
        "Market, Grocers, Farms, Foods, Pantry, Harvest, Orchards, Dairy",
        "vegetables, fruits, groceries, cheeses, eggs, spices, meal kits, snacks, olives, juices, nuts",
        "fruit box, vegetable box, meal kit, cheese board, pantry set",
        "healthy food, groceries in PLACE, vegetables, weekly shopping, snacks for kids, cooking at home, a picnic",
    ),
    "shoes": _category(
        "Shoes, Footwear, Boots, Sneakers, Runners, Soles",
        "shoes, boots, sneakers, sandals, running shoes, trail shoes, slippers, loafers, heels",
        "running shoe, hiking boot, sneaker, walking shoe, trail shoe",
        "running shoes, hiking boots, shoes for work, a marathon, winter boots, walking in PLACE, sneakers",
    ),
    "clothes": _category(
        "Clothing, Apparel, Wear, Tailors, Threads, Fashion, Knitwear, Outfitters, Denim, Boutique",
        "jackets, coats, dresses, shirts, sweaters, scarves, jeans, hats, socks, suits, raincoats, gloves",
        "jacket, coat, dress, suit, sweater, raincoat, wool scarf",
        "a winter coat, summer clothes, a wedding suit, rain jackets, clothes for kids, a dress for a party, fashion",
    ),
    "sport": _category(
        "Sports, Athletics, Gear, Bikes, Cycles, Outdoors, Surf, Skis, Climbing, Boards",
        "bikes, tents, backpacks, skis, surfboards, kayaks, rackets, helmets, sleeping bags, paddles, skates",
        "bike, tent, backpack, surfboard, kayak, racket, mountain bike, snowboard",
        "camping gear, a mountain bike, surfing in PLACE, skiing in PLACE, tents, cycling to work, outdoor sports",
    ),
    "fitness": _category(
        "Fitness, Gym, Yoga, Pilates, Studio, Wellness, Spa, Health Club",
        "yoga classes, workouts, massages, training plans, spin classes, spa days, swim lessons, saunas",
        "gym, spa day, massage, training plan, yoga class, pool",
        "getting fit, a gym in PLACE, yoga classes, back pain, a spa day, weight training, stress relief",
    ),
    "furniture": _category(
        "Furniture, Interiors, Home, Woodworks, Design, Sofas, Living, Beds",
        "sofas, chairs, tables, beds, desks, shelves, mattresses, lamps, rugs, curtains, wardrobes, stools",
        "sofa, desk, mattress, armchair, dining table, bookshelf, reading lamp",
        "a new sofa, home office desks, a comfortable bed, living room ideas, dining tables, small apartments, lamps",
    ),
    "garden": _category(
        "Gardens, Nursery, Seeds, Blooms, Florist, Plants, Landscapes, Greenhouse, Flowers",
        "roses, bouquets, seeds, plants, herbs, fruit trees, tulips, garden tools, planters, shrubs, bulbs",
        "bouquet, garden shed, herb garden, fruit tree, rose bush, greenhouse, lawn mower",
        "gardening, flowers for a wedding, a vegetable garden, house plants, garden tools, a balcony garden, roses",
    ),
    "pets": _category(
        "Pets, Pet Care, Kennels, Veterinary, Paws, Pet Foods, Aquatics, Stables",
        "dog snacks, cat toys, dog beds, leashes, fish tanks, bird feeders, pet foods, grooming visits, collars",
        "dog bed, cat tree, puppy class, fish tank, pet checkup, dog walker",
        "dog food, a new puppy, cat toys, pet care in PLACE, dog training, a fish tank, grooming a dog",
    ),
    "electronics": _category(
        "Electronics, Audio, Tech, Devices, Labs, Systems, Computing, Cameras, Phones, Optics",
        "headphones, laptops, speakers, cameras, phones, tablets, keyboards, monitors, chargers, watches, drones",
        "laptop, phone, camera, speaker, tablet, smart watch, keyboard, drone, microphone",
        "a new laptop, headphones for travel, cameras for beginners, wireless speakers, a phone for seniors, home audio",
    ),
    "software": _category(
        "Software, Cloud, Apps, Analytics, Digital, Networks, Data, Security, Hosting",
        "apps, backups, invoices, dashboards, websites, online tools, passwords, calendars, reports, servers",
        "app, website builder, budgeting app, cloud drive, online store, calendar, password vault",
        "accounting software, a website for a shop, cloud storage, team planning, online security, email tools",
    ),
    "bank": _category(
        "Bank, Savings, Credit Union, Finance, Capital, Loans, Wealth, Payments, Trust",
        "loans, savings accounts, mortgages, credit cards, pensions, funds, transfers, mortgage rates",
        "savings account, home loan, credit card, mortgage, retirement plan, checking account",
        "a home loan, saving money, credit cards, retirement planning, a student loan, buying a house, investing",
    ),
    "insurance": _category(
        "Insurance, Mutual, Assurance, Cover, Protection, Guard",
        "policies, travel policies, health plans, home policies, claims, car policies, quotes",
        "health plan, travel policy, home policy, car policy, family plan, quick quote",
        "car insurance, travel insurance, health insurance for families, insuring a house, life insurance, pet insurance",
    ),
    "health": _category(
        "Dental, Clinic, Pharmacy, Medical, Optical, Physio, Care, Vision, Dentistry",
        "checkups, glasses, vitamins, braces, cleanings, eye tests, vaccines, therapies, contact lenses",
        "dental checkup, eye test, clinic, hearing test, health check, therapy plan",
        "a dentist in PLACE, new glasses, vitamins, a sore back, an eye test, family doctors, healthy teeth",
    ),
    "beauty": _category(
        "Beauty, Cosmetics, Salon, Skincare, Barbers, Perfumes, Soap Company, Nails",
        "soaps, face creams, haircuts, perfumes, lipsticks, shampoos, manicures, hair oils, candles, lotions",
        "face cream, haircut, perfume, shave, manicure, gift box, body lotion",
        "dry skin, a new haircut, natural soap, perfume for a gift, hair care, a salon in PLACE, skincare",
    ),
    "school": _category(
        "Academy, School, Institute, College, Learning, Tutors, Music School, Language School",
        "courses, piano lessons, language classes, workshops, tutors, exam lessons, dance classes, coding classes",
        "language course, piano lesson, coding class, summer school, evening class, pottery workshop",
        "learning a language, piano lessons, coding for kids, exam help, dance classes in PLACE, learning to cook, art classes",
    ),
    "books": _category(
        "Books, Press, Publishing, Library, Papers, Comics, Stationers",
        "novels, cookbooks, picture books, notebooks, maps, comics, audiobooks, atlases, pens, calendars",
        "novel, cookbook, audiobook, travel guide, notebook, puzzle book, fountain pen",
        "a good novel, books for children, cookbooks, notebooks, a summer read, puzzles, gifts for readers",
    ),
    "toys": _category(
        "Toys, Games, Playhouse, Puzzles, Hobby, Models",
        "board games, puzzles, wooden toys, building blocks, dolls, kites, train sets, card games, trampolines",
        "board game, puzzle, train set, kite, dollhouse, model plane, chess set",
        "toys for kids, a birthday gift, board games, rainy day ideas, puzzles for adults, a gift for a nephew",
    ),
    "music": _category(
        "Music, Guitars, Records, Sound, Strings, Pianos, Festival, Concerts",
        "guitars, records, drums, violins, concerts, pianos, ukuleles, festival passes, flutes",
        "guitar, piano, concert, drum kit, record player, violin, festival pass",
        "a first guitar, live music in PLACE, vinyl records, learning the piano, concerts, music for a wedding",
    ),
    "energy": _category(
        "Energy, Solar, Power, Heating, Electric, Lighting, Batteries, Wind",
        "solar panels, heat pumps, batteries, light bulbs, boilers, wall chargers, radiators, energy plans",
        "solar roof, heat pump, energy plan, home battery, boiler, wall charger",
        "solar panels, lower energy bills, heating a house, charging a car at home, green power, warm floors",
    ),
    "builders": _category(
        "Builders, Roofing, Plumbing, Tools, Paints, Hardware, Repairs, Windows, Flooring, Tiles",
        "paints, tools, roofs, windows, tiles, drills, kitchens, bathrooms, wooden floors, repairs, ladders",
        "kitchen, bathroom, new roof, drill set, wooden floor, paint kit, repair visit",
        "a leaky roof, a new kitchen, painting a room, a plumber in PLACE, bathroom tiles, power tools, home repairs",
    ),
    "cleaning": _category(
        "Cleaning, Laundry, Cleaners, Home Care, Movers, Storage, Maids",
        "house cleanings, moving boxes, laundry visits, storage rooms, window washes, carpet cleanings, mops",
        "house cleaning, storage room, moving crew, carpet cleaning, laundry plan",
        "cleaning a house, moving to PLACE, storage space, dirty carpets, laundry, spring cleaning, moving boxes",
    ),
    "jewelry": _category(
        "Jewelers, Jewelry, Gold, Diamonds, Watches, Rings, Silver, Gems",
        "rings, necklaces, watches, earrings, bracelets, pearls, brooches, wedding rings, cuff links",
        "ring, necklace, watch, bracelet, wedding ring, pearl necklace, pocket watch",
        "an engagement ring, a gift for an anniversary, watches, silver earrings, wedding rings, a necklace",
    ),
    "drinks": _category(
        "Winery, Brewery, Vineyards, Spirits, Cellars, Juices, Water, Lemonade, Cider",
        "wines, ales, lemonades, ciders, juices, sodas, mineral waters, syrups, smoothies",
        "red wine, pale ale, lemonade, wine tasting, cider, mineral water, smoothie",
        "wine for dinner, a summer drink, a party, drinks without sugar, a wine tasting in PLACE, juice for kids",
    ),
    "events": _category(
        "Events, Weddings, Catering, Parties, Tickets, Theater, Cinema, Photography, Studios",
        "wedding photos, party tents, tickets, portraits, buffets, balloons, movie nights, shows, banquets",
        "wedding photographer, party tent, buffet, movie night, dinner show, portrait session",
        "a wedding in PLACE, a birthday party, catering for fifty guests, theater tickets, family photos, an office party",
    ),
    "baby": _category(
        "Baby, Kids, Nursery Goods, Strollers, Childcare, Family, Maternity",
        "strollers, cribs, blankets, baby clothes, bottles, car seats, diapers, picture frames, high chairs",
        "stroller, crib, car seat, baby blanket, high chair, night light, day nursery",
        "a newborn, strollers, baby clothes, a crib, day care in PLACE, gifts for a baby, car seats",
    ),
    "office": _category(
        "Office, Print, Logistics, Couriers, Consulting, Staffing, Legal, Accounting, Signs",
        "business cards, parcels, office chairs, posters, contracts, tax returns, labels, envelopes, deliveries",
        "tax return, business plan, parcel service, office lease, print shop, legal review",
        "business cards, shipping a parcel, tax help, hiring staff, a lawyer in PLACE, printing posters, a small business",
    ),
}

RELATED: tuple[tuple[str, ...], ...] = (
    ("airline", "hotel", "tours", "cars", "cruise", "insurance", "restaurant"),
    ("restaurant", "coffee", "bakery", "drinks", "grocery", "events"),
    ("shoes", "clothes", "sport", "fitness", "jewelry", "beauty"),
    ("furniture", "garden", "builders", "cleaning", "energy", "electronics", "insurance", "bank"),
    ("electronics", "software", "office", "bank", "music", "school"),
    ("baby", "toys", "books", "school", "music", "pets", "health"),
    ("health", "fitness", "beauty", "insurance", "grocery"),
    ("events", "jewelry", "clothes", "bakery", "drinks", "music", "garden"),
)

MODIFIERS: tuple[str, ...] = _split(
    """affordable, airy, all-day, all-natural, ancient, artful, authentic, award-winning, balanced, barefoot, beachfront, beautiful,
    bold, bright, brand-new, breezy, budget, calm, candlelit, carefree, careful, certified, charming, cheap, cheerful, classic, clean,
    clever, comfortable, compact, cozy, creamy, crisp, custom, daily, daring, delicate, delightful, dependable, digital, direct,
    discounted, durable, early-bird, easy, eco-friendly, effortless, elegant, energizing, everyday, exclusive, expert, fair, family-run,
    famous, fast, festive, fine, first-class, flexible, fresh, friendly, full-size, generous, gentle, gift-wrapped, gluten-free, golden,
    graceful, half-price, handmade, hand-picked, hand-stitched, handy, hearty, heavy-duty, heritage, home-grown, homemade, honest,
    hypoallergenic, imported, independent, inspiring, iconic, jumbo, juicy, kid-friendly, kind, large, last-minute, late-night,
    legendary, light, lightweight, limited, lively, local, long-lasting, lovely, low-cost, low-fare, low-fat, luxurious, luxury,
    magical, medium, mild, mini, modern, modest, mountain, natural, neat, new, next-day, noiseless, nonstop, nostalgic, nourishing,
    oceanfront, odorless, old-world, one-day, online, open-air, organic, original, outdoor, overnight, oversized, padded, pastel,
    patient, peaceful, perfect, personal, pet-friendly, playful, plush, pocket-size, polished, popular, portable, practical, precise,
    premium, pretty, private, professional, proven, pure, quality, quick, quiet, rare, ready-made, rebuilt, recycled, refined, refreshing,
    refurbished, relaxed, reliable, remote, restful, retro, rich, robust, romantic, roomy, round-trip, royal, rugged, rustic, safe,
    same-day, scenic, seasonal, second-hand, secure, silent, silky, simple, sleek, slim, slow-roasted, small, smart, smooth, snug,
    soft, solid, soothing, sparkling, spacious, special, speedy, spicy, splendid, spotless, stainless, steady, stretchy, strong,
    stunning, sturdy, stylish, sugar-free, summer, sunny, superb, supple, sustainable, sweet, swift, tailored, tasty, tender, thoughtful,
    three-day, timeless, tiny, top-rated, tough, traditional, tranquil, trendy, trusted, two-day, ultralight, unhurried, unique,
    unlimited, upgraded, urban, useful, vegan, vintage, vivid, walk-in, warm, washable, waterproof, weatherproof, weekend, welcoming,
    well-made, whole-grain, wholesale, wide, wild, windproof, winter, wireless, wonderful, world-class, woven, young, zesty, zero-waste"""
)

MATERIALS: tuple[str, ...] = _split(
    """acorn, alder, almond, alpine, amber, apple, apricot, aspen, autumn, avocado, bamboo, barley, basil, beech, berry, birch, blossom,
    brass, brick, bronze, buckwheat, butter, cactus, calico, canvas, caramel, carbon, cashew, cedar, ceramic, chalk, cherry, chestnut,
    cinnamon, citrus, clay, clover, cobalt, cocoa, coconut, copper, coral, cork, cotton, cranberry, crystal, cypress, denim, desert,
    driftwood, ebony, elm, emerald, enamel, evening, feather, felt, fern, fig, flax, fleece, forest, ginger, glacier, glass, goatskin,
    granite, grape, graphite, harbor, hazel, hazelnut, heather, hemp, herb, hickory, highland, honey, indigo, iron, island, ivory,
    jade, jasmine, juniper, jute, kelp, lace, lakeside, lantern, larch, laurel, lavender, leather, lemon, lilac, lime, linen, lotus,
    mahogany, mango, maple, marble, marigold, meadow, melon, merino, mesh, mint, mocha, mohair, moonlight, morning, moss, mulberry,
    mustard, nectarine, nettle, night, nutmeg, nylon, oak, oat, olive, onyx, opal, orange, orchid, paper, papaya, parsley, peach,
    peanut, pear, pecan, pepper, pewter, pine, pistachio, plum, poplar, poppy, porcelain, prairie, pumpkin, quartz, quince, raspberry,
    rattan, redwood, reed, resin, rice, riverside, rooftop, rose, rosewood, rubber, ruby, rye, saffron, sage, sandalwood, sapphire,
    satin, sesame, shell, silk, silver, slate, snow, spring, spruce, starlight, steel, straw, suede, sunflower, sunset, swan, tangerine,
    teak, terracotta, thyme, timber, titanium, topaz, truffle, turquoise, twilight, valley, vanilla, velvet, vine, violet, walnut,
    waterfall, wheat, wicker, willow, woodland, wool, yew, zinc"""
)

PRODUCTS: tuple[str, ...] = _split(
    """aprons, anvils, awnings, axes, backdrops, badges, baskets, bathrobes, beads, beehives, bells, belts, benches, binoculars, blinds,
    boots, bowls, boxes, brooms, brushes, buckets, buttons, cabinets, candles, canoes, caps, carpets, carts, chandeliers, cloaks, clocks,
    coasters, combs, compasses, coolers, corks, crates, crayons, cups, cushions, cutlery, decks, dishes, doors, drapes, dressers,
    easels, fans, fences, fiddles, flags, flasks, forks, fountains, frames, freezers, gates, globes, goggles, grills, hammers, hammocks,
    hampers, handbags, harnesses, hinges, hoses, jars, jugs, kettles, keys, knives, lanterns, lenses, lockers, locks, looms, mats,
    mirrors, mittens, mixers, mugs, napkins, needles, ornaments, ovens, paddleboards, paintings, pans, parasols, patches, pillows,
    pitchers, plates, pots, pouches, presses, projectors, pumps, purses, quilts, rafts, rakes, ribbons, ropes, saddles, saws, scales,
    scissors, screens, sculptures, sewing kits, shutters, sieves, skillets, sleds, spades, spoons, stamps, statues, stoves, suitcases,
    swings, tapestries, tarps, teapots, telescopes, thermometers, ties, toasters, torches, towels, trays, trumpets, trunks, umbrellas,
    vases, veils, vests, wagons, wallets, wheels, whistles, wreaths, yarns, zippers"""
)

AFTER_OFFER: tuple[str, ...] = _split(
    """for families, for beginners, for small spaces, for every budget, for early risers, for couples, for seniors, for students,
    for cold days, for hot days, for two, for the whole family, for busy people, for all ages, for everyday use, for travelers,
    at fair prices, at low prices, at half price, at any hour, by the sea, by the lake, by the river, in every size, in every color,
    near the beach, near the old town, on the coast, on sale this week, under one roof, with a smile, with a view, with free delivery,
    with free returns, with no hidden fees, with a lifetime warranty, without the wait, made to last, made by hand,
    open every day, around the clock, all year round, in the heart of PLACE, in PLACE, near PLACE, from PLACE"""
)
TRAVEL_AFTER: tuple[str, ...] = _split(
    "to PLACE, from PLACE, in PLACE, around PLACE, near PLACE, on PLACE, across PLACE, over PLACE, to PLACE and back, in sunny PLACE"
)

NEUTRAL: tuple[str, ...] = (
    "compare a few options before you decide",
    "take your time and read some reviews first",
    "set a budget and plan ahead",
    "ask friends what worked for them",
    "start early and keep things simple",
    "check the prices and the small print",
    "look at what you really need",
    "a little planning goes a long way",
    "it pays to compare prices",
    "there are many good choices",
    "it helps to know what you want",
    "most people do well with a simple plan",
    "quality matters more than price",
    "make a short list and compare",
    "think about what matters most to you",
    "read a few reviews before you buy",
    "the best choice depends on your budget",
    "see what is on offer and take your pick",
    "a short list of questions will help",
    "good advice is easy to find",
)

OPENINGS: tuple[tuple[str, int], ...] = (  # text, relative frequency
    (" For TOPIC,", 6),
    (" When it comes to TOPIC,", 2),
    (" Looking for TOPIC?", 3),
    (" Thinking about TOPIC?", 2),
    (" Dreaming of TOPIC?", 1),
    (" If you want TOPIC,", 2),
    (" In need of TOPIC?", 1),
    (" Curious about TOPIC?", 1),
)

QUERIES: tuple[tuple[str, int], ...] = (  # text, relative frequency
    ("TOPIC", 8),
    ("Where can I find TOPIC?", 2),
    ("What should I know about TOPIC?", 2),
    ("I am looking for TOPIC", 2),
    ("Ideas for TOPIC", 1),
    ("Help with TOPIC", 1),
    ("Can you recommend something for TOPIC?", 2),
    ("Who can help me with TOPIC?", 1),
    ("Tell me about TOPIC", 1),
    ("What is best for TOPIC?", 1),
)

# Queries that no opening takes up. THING is a product, PLACE a place.
FREE_QUERIES: tuple[str, ...] = (
    "Where should we stay in PLACE?",
    "Where should we eat in PLACE tonight?",
    "Where can I park in PLACE?",
    "What is there to see in PLACE?",
    "How do I get to PLACE?",
    "What should I pack for PLACE?",
    "Is PLACE worth a visit?",
    "How do I clean THING?",
    "How do I choose THING?",
    "Which THING should I buy?",
    "My THING are broken",
    "Are THING a good present?",
    "THING or THING?",
    "We are moving to PLACE",
    "What can we do this weekend?",
    "I need a present for a friend",
    "How can I save money?",
    "We want to celebrate",
    "Something for a rainy day",
    "Who still makes THING?",
)

PLACES: tuple[str, ...] = _split(
    """Amsterdam, Andalusia, Arizona, Athens, Bali, Barcelona, Berlin, Bergen, Boston, Brittany, Budapest, Cairo, California, Canada,
    Cape Town, Chicago, Colorado, Copenhagen, Corsica, Crete, Croatia, Cyprus, Dakota, Denmark, Dublin, Edinburgh, Fiji, Finland,
    Florence, Florida, Geneva, Genoa, Greece, Hamburg, Helsinki, Iceland, India, Ireland, Istanbul, Italy, Jamaica, Japan, Kenya, Kyoto,
    Lapland, Lisbon, London, Madeira, Maine, Malta, Mexico, Milan, Monaco, Montana, Morocco, Munich, Naples, Nepal, Nevada, New York,
    Normandy, Norway, Oregon, Oslo, Panama, Paris, Patagonia, Peru, Porto, Prague, Provence, Rome, Samoa, Sardinia, Scotland, Seattle,
    Seville, Sicily, Spain, Stockholm, Sweden, Sydney, Tahiti, Tokyo, Toronto, Tuscany, Utah, Venice, Vermont, Vienna, Vietnam, Wales"""
)

ONSETS: tuple[str, ...] = _split(
    "b, bl, br, c, ch, cl, cr, d, dr, f, fl, fr, g, gl, gr, h, j, k, kl, kr, l, m, n, p, pl, pr, qu, r, s, sc, sh, sk, sl, sm, sn, sp, "
    "st, str, sw, t, th, tr, tw, v, vr, w, y, z"
)
NUCLEI: tuple[str, ...] = _split("a, e, i, o, u, ai, ea, ee, ia, io, oa, oo, ou, y, au, ei, ue")
CODAS: tuple[str, ...] = _split(
    "n, r, l, s, x, m, t, k, d, nd, nt, rn, ll, st, ck, v, th, sh, ris, lan, dor, via, wen, mar, ton, ley, nix, zo, da, ra, mi, no, vo"
)
NAME_WORDS: tuple[str, ...] = _split(
    """Anchor, Apex, Arbor, Arrow, Ash, Aster, Atlas, Aurora, Badger, Banner, Barn, Bay, Beacon, Bear, Bell, Birch, Bison, Blue, Bloom,
    Bolt, Branch, Breeze, Bridge, Bright, Brook, Canyon, Castle, Cedar, Chime, Cliff, Cloud, Comet, Compass, Cove, Crane, Crest, Crown,
    Dawn, Deer, Dove, Dragon, Drift, Dune, Eagle, Earl, Echo, Elm, Ember, Falcon, Fern, Field, Finch, Flint, Forge, Fox, Frost, Garnet,
    Gate, Gem, Glen, Gold, Grand, Green, Grove, Gull, Harbor, Hare, Harvest, Haven, Hawk, Hazel, Heron, Hill, Hollow, Horizon, Iris,
    Iron, Island, Ivy, Jade, Jet, Jolly, Jupiter, Kestrel, Key, Kings, Kite, Lake, Lantern, Lark, Leaf, Lily, Lion, Lotus, Lucky, Luna,
    Lynx, Magnet, Maple, Mason, Meadow, Mercury, Merit, Mill, Mint, Moon, Moss, Mountain, Nest, Noble, North, Nova, Oak, Ocean, Olive,
    Onyx, Orbit, Orchard, Otter, Owl, Palm, Panda, Peak, Pearl, Pebble, Pepper, Pilot, Pine, Pioneer, Pixel, Plum, Polar, Prairie,
    Prime, Quail, Quartz, Queen, Quick, Quill, Rain, Raven, Red, Reef, Ridge, River, Robin, Rocket, Rose, Royal, Ruby, Saddle, Sage,
    Sail, Sand, Scout, Shell, Shore, Silver, Sky, Slate, Snow, Solar, Sparrow, Spring, Spruce, Star, Stone, Storm, Summit, Sun, Swan,
    Swift, Terra, Thistle, Thorn, Thunder, Tide, Tiger, Timber, Torch, Tower, Trail, True, Tulip, Union, Valley, Vector, Velvet, Venture,
    Violet, Vista, Walnut, Wave, West, Whale, Wild, Willow, Wind, Wing, Winter, Wolf, Wonder, Wren, Yarrow, Zenith, Zephyr"""
)
ACCENTS: dict[str, str] = dict(zip("aeiouncAEIOU", "áéíöüñçÁÉÍÖÜ", strict=True))
COMPANY_WORDS: tuple[str, ...] = _split(
    "Company, Group, Works, House, Direct, Partners, Brothers, Collective, Store, Shop, Corner, Center, Co, Hub, World, Line, Club"
)
FORBIDDEN: frozenset[str] = frozenset({"alpha", "beta", "hawaii", "delta", "gamma", "omega"})  # kept for the examples
