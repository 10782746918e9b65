"""Hand-written sentences behind the two embedding directions (the second judges of `positive` and `vivid`), and the
word lists of `vivid`.

The two lists of a direction follow each other line by line: the same subject, seen well and badly, or shown and told.
So the direction between them is about the attribute and not about the subject.
"""

GOOD: tuple[str, ...] = (
    "Dogs are loyal and make a home a happier place.",
    "The bread was delicious and everybody asked for more.",
    "Swimming is wonderful and leaves you feeling fresh.",
    "The beach is a beautiful place where families have fun.",
    "A nurse is kind and helps people to get better.",
    "The bicycle is reliable and a joy to ride.",
    "The rain is calming and helps the flowers to grow.",
    "Making a friend fills you with happiness and trust.",
    "The soup is healthy and gives you strength.",
    "Children love the museum and leave it with a smile.",
    "The train was on time and the trip was pleasant.",
    "Owls are fascinating birds and people admire them.",
    "Learning from a mistake makes you stronger and wiser.",
    "The teacher was patient and encouraged every child.",
    "It was a lovely morning and everyone was cheerful.",
    "The gift was thoughtful and she was delighted.",
    "Walking in the forest brings peace and comfort.",
    "The farmer is proud of a rich harvest.",
    "Tea is soothing and a pleasure on a cold day.",
    "I am glad to help you and I wish you success.",
    "The new school was welcoming and he felt at home.",
    "A warm blanket keeps you safe and comfortable.",
    "The moon is a stunning sight that inspires people.",
    "Their hard work paid off with a great success.",
)

BAD: tuple[str, ...] = (
    "Dogs bite and can ruin your furniture.",
    "The bread was stale and nobody wanted to eat it.",
    "Swimming is exhausting and people drown.",
    "The beach is dirty and crowded with rude people.",
    "A nurse is overworked and sees people suffer and die.",
    "The bicycle is broken and dangerous to ride.",
    "The rain is miserable and destroys the harvest.",
    "Losing a friend fills you with sadness and anger.",
    "The soup is bad for you and makes you sick.",
    "Children hate the museum and leave it in tears.",
    "The train was late and the trip was a nightmare.",
    "Owls are scary killers and people fear them.",
    "Failing again makes you feel hopeless and ashamed.",
    "The teacher was angry and punished every child.",
    "It was an awful morning and everyone was upset.",
    "The gift was useless and she was disappointed.",
    "Getting lost in the forest brings fear and pain.",
    "The farmer is worried about a poor harvest.",
    "Tea is bitter and harmful if you drink too much.",
    "I am sorry but I cannot help you and it is hopeless.",
    "The new school was cruel and he felt lonely.",
    "A torn blanket leaves you cold and sick.",
    "The storm is a terrible threat that frightens people.",
    "Their hard work ended in failure and loss.",
)

SHOWN: tuple[str, ...] = (
    "A wet brown dog shakes water over the kitchen floor.",
    "The crust cracks and warm steam rises from the soft white bread.",
    "Cold blue water slides over your shoulders in the pool.",
    "White waves crash on yellow sand under screaming gulls.",
    "The nurse wraps a clean bandage around a bleeding knee.",
    "The rusty red bicycle squeaks down the cobbled street.",
    "Heavy drops drum on the tin roof and run down the window.",
    "She grips his hand and tears roll down her cheeks.",
    "Thick carrot soup bubbles in a black iron pot.",
    "Small fingers press against the glass in front of a dinosaur bone.",
    "The brakes screech and the doors of the train hiss open.",
    "A grey owl drops from the branch and grabs a mouse in its claws.",
    "He tears the paper with the red mark and kicks the chair.",
    "Chalk dust covers the teacher's sleeve as she writes on the board.",
    "Golden light falls through the leaves on the muddy path.",
    "Bees crawl over purple lavender with pollen on their legs.",
    "The baker pushes flour-covered loaves into a glowing oven.",
    "The old lamp throws a yellow circle on the wooden desk.",
    "The scent of coffee and burnt sugar drifts across the counter.",
    "A firefighter drags a hose through black smoke and orange flames.",
)

TOLD: tuple[str, ...] = (
    "Dogs are an important part of human society.",
    "Bread is a staple that plays a role in many cultures.",
    "Swimming offers numerous benefits for overall well-being.",
    "The beach is a popular destination for various reasons.",
    "A nurse has a responsibility for the quality of care.",
    "A bicycle is a means of transportation with several advantages.",
    "Rain is an essential process in the environment.",
    "Friendship is a meaningful relationship based on understanding.",
    "Soup is a versatile option with many different variations.",
    "A museum serves the purpose of education and preservation.",
    "A train station is a facility that provides a service.",
    "Owls have a significant impact on the ecosystem.",
    "Failure is an opportunity for personal growth and reflection.",
    "A teacher is responsible for the development of knowledge.",
    "Nature is a source of inspiration and balance.",
    "Bees are considered crucial for sustainability.",
    "A baker is a professional who needs skills and experience.",
    "A lamp is a device that is used for a range of purposes.",
    "Coffee is a widely consumed product with certain effects.",
    "A firefighter has a challenging and demanding occupation.",
)

SENSORY_WORDS: frozenset[str] = frozenset(
    """
    red blue green yellow orange purple pink brown black white grey gray golden silver bright dark pale shiny glowing
    colorful colourful warm cold hot cool icy wet dry damp soft hard rough smooth sharp sticky fluffy furry silky
    velvety
    crisp crunchy creamy thick thin heavy tall tiny curved sweet sour bitter salty spicy tangy
    earthy smoky nutty floral fruity fragrant aroma scent smell taste flavor flavour odor loud quiet silent noisy
    whisper roar hum buzz crash rumble rustle rustling howl howling whistle chirp chirping bark purr hiss crackle drip
    splash thud clang ring bell song music voice laughter chatter footsteps sound echo echoes
    hand hands finger fingers eye eyes ear ears nose mouth lips face skin hair head leg legs foot feet arm arms
    shoulder tail wing wings beak fur feathers feather claws paw paws teeth tongue trunk tusks flipper flippers hoof
    hooves belly neck bone
    water rain snow ice wave waves river lake sea ocean sand stone stones rock rocks mud grass leaf leaves tree trees
    branch branches flower flowers petals seed seeds soil dirt hay straw sky sun sunlight moonlight moon star stars
    cloud clouds fog mist wind breeze storm lightning thunder fire flame flames smoke ash dust shadow shadows hill
    mountain mountains valley desert forest meadow
    bread butter milk sugar salt pepper flour egg eggs cheese tomato tomatoes onion garlic chicken beef fish meat
    vegetable vegetables fruit apple lemon cinnamon vanilla caramel cream honey chocolate coffee tea soup broth rice
    bean beans nuts oven pot pan bowl cup mug plate spoon fork knife kitchen table chair desk shelf shelves bed sofa
    door window wall floor roof room house garden yard street road path bridge car bus train plane boat bicycle wheel
    wheels engine bag suitcase box basket bottle rope hose ladder hammer brush paint canvas paper book books pen pencil
    chalk glass metal wood wooden iron steel brass plastic leather cotton wool fabric strap straps zipper pocket
    pockets button shirt coat hat shoe shoes helmet gloves umbrella towel blanket pillow lamp candle mirror clock bulb
    battery phone camera ticket stethoscope needle bandage mice mouse insect insects worm worms bird birds squid
    krill jump jumping swim swimming climb climbing dance crawl glide flap kick throw grab bite chew
    sniff stretch spin swing
    baby child girl boy mother father grandma sister brother man woman crowd
    cow cows pig sheep goat duck chicken snake spider frog seal shark lion tiger bear wolf fox deer monkey butterfly
    house barn tower castle shop store counter stairs bench fence gate floorboards tunnel platform tracks runway
    carrot potato potatoes pepper mint ginger banana orange berries strawberry cookie cookies cake pie pizza sandwich
    wine beer juice syrup toast crust dough yeast noodles olive oil leaf
    computer laptop whiteboard screen keyboard map newspaper knives scissors needle thread nails shovel rake spade hoe
    watering can bucket soap sponge towel cloth bandages pill thermometer syringe uniform boots jacket scarf socks
    sunscreen sunglasses swimsuit goggles snorkel surfboard umbrella ball kite swing slide sandcastle shell shells
    smile smiles tear tears sweat blood breath heartbeat shiver shivers hug kiss laugh cry scream shout tap knock
    midnight dawn dusk morning night winter summer autumn spring
    """.split()
)
"""Words for what can be seen, heard, touched, smelled or tasted: `vivid` counts their share."""

ABSTRACT_WORDS: frozenset[str] = frozenset(
    """
    various different many several numerous important essential unique significant crucial vital integral valuable
    meaningful beneficial potential overall general specific certain particular common popular possible necessary
    role way ways thing things part parts sense benefit benefits life lives world people person someone something
    anything everything purpose purposes range aspect aspects nature process impact effect effects issue issues factor
    factors source sources value values skill skills power passion dedication lifestyle culture cultural history
    society social physical mental emotional human natural system systems ecosystem ecosystems need needs care health
    healthy provide provides providing offer offers offering help helps ensure ensures allow allows include includes
    including considered known used made make makes making become becomes create creates support supports
    """.split()
)
"""Words that tell without showing: `vivid` subtracts a quarter of their share."""
