"""Tools composed of an action and a thing, asked for in other words for both: what `close_window` does when somebody says "shut the pane"."""
from intents import POOL, Intent
from words import pick

# Words for one action; underscores join the words of a name.
ACTIONS = [x.split(",") for x in """close,shut,seal,bar,close up,pull shut
open,unlock,unbar,open up
start,launch,begin,switch on,turn on,activate,fire up,get going
stop,end,halt,switch off,turn off,shut down,quit,put an end to
create,make,add,set up,draw up,prepare,put together
delete,remove,erase,throw away,get rid of,wipe out,scrap
send,mail,post,forward,dispatch
buy,purchase,acquire,pay for,spend money on
book,reserve,keep free,hold
find,search,look for,seek,locate,hunt for,spot
show,display,present,bring up,let me see
paint,draw,sketch,picture
call,phone,ring,talk to,get on the line
cancel,call off,revoke,drop
change,alter,edit,modify,adjust,update,correct
move,shift,transfer,bring over,carry away
check,verify,inspect,test,look at,examine
count,number,tally,add up
copy,duplicate,clone,make a twin of
clean,wipe,sweep,wash,scrub
repair,fix,mend,put right
rent,hire,lease
save,store,keep,file away,put away
share,publish,make public,pass around
record,log,note,jot down,write down
remind,nudge,alert,jog the memory of
raise,lift,increase,turn up,boost
lower,reduce,decrease,turn down,bring down
assign,hand over,delegate,entrust
approve,accept,allow,sign off on,agree to
reject,refuse,deny,turn away
track,follow,trace,keep an eye on
measure,gauge,size up,take the size of
describe,explain,tell about,say more about
compare,weigh up,hold against another
join,enter,take part in,get into
leave,quit,walk out of,get out of
hide,conceal,cover up,put out of sight
protect,guard,secure,keep safe
watch,observe,view,see
read,go through,look into,study
deliver,bring,drop off,hand in
order,request,ask for,send for
sort,arrange,put in order,tidy up
merge,combine,join up,unite
rename,give a new name to,call differently
pause,hold on with,interrupt,suspend
continue,resume,go on with,carry on with
rate,judge,score,give marks to
feed,give food to,fill the bowl of
sell,put up for sale,turn into money
invite,ask to come,have over
connect,link,plug in,hook up
reset,restore,bring back to the start""".split("\n")]
THINGS = [x.split(",") for x in """car,automobile,vehicle,wheels
entrance,doorway,way in
window,pane
picture,image,photo,drawing
movie,film
song,track,tune,piece of music
message,text,note,line
file,document,paper
folder,directory
task,job,chore,to-do
meeting,appointment,get-together
house,home,building
apartment,flat,lodging
shop,store
meal,food,dish,something to eat
restaurant,place to eat,diner
doctor,physician
medicine,drug,pill
parcel,package,shipment
invoice,bill
money,cash,funds
telephone,phone
lamp,light
heater,radiator,heating
bicycle,bike
plane,airplane,flight
train,railway
ticket,pass
seat,chair,place to sit
basket,cart,shopping bag
member,person,account holder
employee,worker,colleague
manager,boss,head
garden,yard,lawn
password,secret word,pass code
alarm,siren,bell
report,account,write-up
table,grid
record,row,entry
error,fault,bug
server,machine,host
application,program,app
backup,snapshot,safe copy
curtain,blind,shutter
trip,journey,ride
vacation,holiday,time off
gift,present
match,game
club,team
book,novel
newspaper,daily
printer,printing machine
camera,photo device
door,gate
key,door opener
clock,watch
letter,written message
reminder,memo
calendar,diary,schedule
contact,friend,acquaintance
database,data store
query,question to the data
painting,artwork
boat,ship,vessel
hotel,inn,place to sleep
pet,animal
plant,flower
road,street,way
bank account,savings
order,purchase
company,firm,business
website,web page,site
video,clip
class,lesson,course
student,pupil
battery,power cell
washing machine,washer
fridge,refrigerator,icebox
trash,garbage,rubbish
queue,line of people
price,cost
speed,pace
volume,loudness
temperature,warmth
language,tongue
answer,reply,response
idea,thought,suggestion
mistake,slip""".split("\n")]
PARAMS = [("name,title,label,target", "word", "{0}"), ("name,id,number,code", "code", "{0}"), ("id,reference,key", "code", "{0}"), ("owner,of,person,user", "person", "of {0}"), ("city,place,location,where", "town", "in {0}"), ("room,where,location,zone", "roomname", "in the {0}"), ("name,title,called", "title", "called {0}")]
MORE = [("date,day,when", "when", "on {1}"), ("time,at,hour", "clock", "at {1}"), ("person,recipient,for", "person", "for {1}"), ("place,city,where", "town", "in {1}"), ("note,text,comment", "words", "with the words {1}")]
NAMES = {n for x in POOL[True] for n in x.names}
SAYS = ["{V} the {n}.", "{V} a {n}.", "Use this to {v} a {n}.", "{V}s the {n} that is named.", "Tool to {v} the {n}.", "{V} one {n} of the user."]
AND_SO = ["that {n}", "the {n}", "the {n}", "our {n}", "my {n}", "this {n}"]


def composed(r, like=None):
    """An intent that nobody wrote; with `like` it shares that one's action or thing."""
    while True:
        action, thing = pick(r, ACTIONS), pick(r, THINGS)
        if like:
            action, thing = (like.action, thing) if r.random() < .5 else (action, like.thing)
        v, n = pick(r, [x for x in action if x.count(" ") < 2]), pick(r, [x for x in thing if " " not in x])
        name = f"{v} {n}".replace(" ", "_").replace("-", "_")
        if name not in NAMES and not (like and (action, thing) == (like.action, like.thing)):
            break
    names, kind, words = pick(r, PARAMS)
    out = Intent.__new__(Intent)
    out.action, out.thing = action, thing
    # What the name says and what the description says may be two words for one thing.
    about = n if r.random() < .6 else pick(r, thing)
    does = v if r.random() < .6 else pick(r, action)
    out.names = [name]
    out.texts = [pick(r, SAYS).format(v=does, V=does.capitalize(), n=about)] if r.random() < .85 else [""]
    out.params = [(names.split(","), kind)]
    tail = words
    if r.random() < .3:
        names, kind, words = pick(r, [m for m in MORE if m[1] != kind])
        out.params.append((names.split(","), kind))
        tail += " " + words
    out.requests, out.more, out.nouns = [], [], []
    far = [x for x in action if x not in (v, does)] or action
    other = [x for x in thing if x not in (n, about)] or thing
    out.verbs = [f"{pick(r, far if r.random() < .75 else action)} {pick(r, AND_SO).format(n=pick(r, other if r.random() < .7 else thing))} {tail}" for _ in range(3)]
    return out
