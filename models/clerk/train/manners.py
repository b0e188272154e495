"""Small talk: greetings, thanks, who and what the model is, and requests that it cannot fulfil. Each kind has one answer.

Phrasings are composed; `HELD` is kept for evaluation.
"""
from words import any_word, made_up, phrase, pick

HELLO = "Hello! How can I help?"
CLERK = "I am clerk, a small model that answers from the text it is given."
WELCOME = "You are welcome."
GOODBYE = "Goodbye."
FINE = "I am fine, thank you."
ABLE = "I can find facts in your text, remember what you tell me and call tools."
ONLY = "I can only answer from the text I am given."
OK = "OK."
SORRY = "I am sorry. Please check it against the text."

GREET = "Hello|Hi|Hey|Good morning|Good evening|Good afternoon|Good day|Hello there|Hi there|Hey there|Greetings|Hiya|Howdy|Morning|Hallo|hello|hi|hey|Welcome back|Yo".split("|")
TO = ["", "", "", " clerk", " again", " assistant", " everybody", " my friend", " bot", " to you", " you", " AI", " computer"]
THANKS = "Thanks|Thank you|Many thanks|Thank you very much|Thanks a lot|Thank you so much|thanks|thank you|Thx|Cheers|Much appreciated|I thank you|Thanks a million|ty|Great, thanks|Perfect, thank you|Wonderful, thanks|OK, thanks|Good, thank you|Thanks for the help|Thank you for your help|That helped, thanks|Very kind, thank you".split("|")
BYE = "Bye|Goodbye|See you|See you later|Bye bye|See you tomorrow|Good night|Until tomorrow|That is all|I am done|I have to go|Farewell|Have a nice day|Take care|bye|Talk to you later|So long|That was all|Ciao|No more questions|Till next time|I am leaving now".split("|")
WHO = """Who are you|What are you|What is your name|Introduce yourself|Tell me who you are|Are you an AI|Who am I talking to|What's your name|Are you a robot|Are you human|Are you a person|What kind of model are you
Which model are you|Who is this|Do you have a name|How are you called|Are you ChatGPT|Are you a bot|Tell me about yourself|What is clerk|Who is clerk|Say something about yourself|What model is this|Are you real
Whom do I speak to|Please introduce yourself|What should I call you|Are you a machine|Describe yourself|Which AI is this""".replace("\n", "|").split("|")
HOW = "How are you|How is it going|How do you do|Are you well|How are you doing|How are you today|Is everything fine|How do you feel|Are you OK|How have you been|What's up|How are things|All good|You OK|How's life|Feeling good".split("|")
CAN = """What can you do|Help|How can you help me|What are you good at|What do you do|What can I ask you|What are you able to do|How does this work|What can I do here|help|What is this|What are you for|How do I use you|What do you know
I need help|Can you help me|What is your job|What is your purpose|Which tasks can you do|List your abilities|What can you help me with|How can you be of use|What are your skills|Tell me what you can do|What could I ask|Give me some examples of what you can do
Show me what you can do|What is possible with you""".replace("\n", "|").split("|")
PING = "Say OK|Reply with OK|ok?|Are you there|Ping|test|Answer with OK|Say ok|Testing|Is this thing on|Can you hear me|Do you hear me|OK|ok|Okay|Alright|Fine|Good|Got it|Understood|I see|Nice|Great|Yes|No|Are you still there|Are you listening|Is anybody there".split("|")
WRONG = "That is wrong|That is not right|You are wrong|Wrong|This is not correct|That is incorrect|You made a mistake|No, that is wrong|That was wrong|I think you are wrong|Wrong answer|Not true|That cannot be right|This answer is wrong|You are mistaken|Are you sure that is right".split("|")
CANNOT = """Write a poem|Tell me a story|Explain gravity|What is the meaning of life|Who won the game|Translate this into French|Write a long essay about the sea|Count to ten|Tell me a joke|What is the capital of France
What do you think about art|Give me some advice|Hello world program|What is 2 + 2|Sing a song|Why is the sky blue|Write a haiku about rivers|Summarize the news|What is the weather today|How do I learn to cook
Who is the president|What year is it|How tall is the highest mountain|Recommend a book|What should I eat tonight|Write a python function|Fix my code|How old is the universe|Make a plan for my week|Do my homework
Who invented the telephone|How many people live on earth|What is love|Draw a picture|Play a game with me|Tell me something interesting|Give me ideas for a birthday|What is machine learning|Explain how a car works|Is there a god
Which country is the largest|What is the boiling point of water|Write an email to my boss|Can you code|What is the best movie|Who wrote Hamlet|How far is the moon|Solve this riddle|Write a song about love|What is a neural network""".replace("\n", "|").split("|")
TOPIC = "the sea,rivers,love,my cat,the weather,history,music,black holes,trees,football,cars,the moon,winter,computers,cooking,birds,money,time,war,peace,mountains,dogs,school,work,art".split(",")
ASKED = ["Write {a} about {t}", "Tell me {a} about {t}", "Explain {t}", "Explain {t} to me", "What is {t}", "Why is {t} so {w}", "How does {t} work", "What do you think about {t}", "Compose {a} on {t}", "Give me {a} about {t}", "Summarize {t}",
         "Can you write {a} about {t}", "What do you know about {t}", "Who invented {t}", "How do I {w} {t}", "Compare {t} and {u}", "Describe {t}", "Teach me about {t}", "Translate {t} into {w}", "Make up {a} about {t}", "I want {a} about {t}", "What is better, {t} or {u}"]
THING = "a poem,a story,a song,a joke,an essay,a letter,a haiku,a speech,some lines,a report,a text,a program,a riddle,a tale".split(",")
END = {HELLO: ["", "!", ".", "", "!"], WELCOME: ["", "!", ".", "!"], GOODBYE: ["", "!", ".", "!"], OK: ["", ".", "?", "!"], SORRY: ["", ".", "!"]}
KINDS = [(HELLO, GREET), (CLERK, WHO), (WELCOME, THANKS), (GOODBYE, BYE), (FINE, HOW), (ABLE, CAN), (ONLY, CANNOT), (OK, PING), (SORRY, WRONG)]
WEIGHTS = [5, 5, 4, 3, 3, 5, 8, 3, 2]
EVERY = [k for k, n in zip(KINDS, WEIGHTS) for _ in range(n)]


def split(xs, held):
    """Every fifth phrasing is kept for evaluation."""
    return xs[4::5] if held else [x for i, x in enumerate(xs) if i % 5 != 4]


def topic(r):
    return pick(r, TOPIC) if r.random() < .5 else phrase(r, 2) if r.random() < .5 else "the " + any_word(r)


def small(r, held=False):
    """`(text, answer)`."""
    answer, texts = pick(r, EVERY)
    if answer == ONLY and not held and r.random() < .5:
        text = pick(r, ASKED).format(a=pick(r, THING), t=topic(r), u=topic(r), w=any_word(r))
    else:
        text = pick(r, split(texts, held))
    if answer == HELLO:
        text += pick(r, TO)
    elif r.random() < .12:
        text = pick(r, split(GREET, held)) + pick(r, (", ", "! ", ". ")) + (text[0].lower() + text[1:] if text[1:2] != " " and text[:2] != "I " and r.random() < .5 else text)
    elif r.random() < .06:
        text += pick(r, (", please", " please", ", clerk", ", my friend", " today", " then", " now"))
    text += pick(r, END[answer] if answer in END else ("?", "?", "", ".") if text.split(" ")[0].lower() in QUESTION else (".", "", "!"))
    if r.random() < .08:
        text = text.lower()
    return text, answer


QUESTION = set("who what which how are is do can why whom whose".split())
