//! The lines of the people in the demo's room, and the titles of the room.
//!
//! Only text: each scene is a short conversation about what the clip shows (paper lanterns that
//! rise over a lake, a boat with a lamp, the moon, somebody plucking strings). `script.rs` chooses
//! the order and the pace.

use Kind::{Gift, Join, Notice, Text};

/// The kind of a line, as in the share page's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Somebody writes a message.
    Text,
    /// A notice of the room itself.
    Notice,
    /// Somebody sends a gift.
    Gift,
    /// Somebody joins.
    Join,
}

impl Kind {
    /// Its name in a message.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Text => "text",
            Notice => "notice",
            Gift => "gift",
            Join => "join",
        }
    }
}

/// One line: sender, kind, text. A notice has no sender.
pub type Line = (&'static str, Kind, &'static str);

/// The room's appearance during a chapter: title, description, colour.
pub type Chapter = (&'static str, &'static str, &'static str);

/// The host of the room.
pub const HOST: &str = "小满";

/// The chapters in order; after the last, the first follows.
pub const CHAPTERS: [Chapter; 5] = [
    (
        "湖边的灯 · Lanterns on the lake",
        "今晚风很轻，我们在湖边放灯。A quiet night, a lake, and paper lanterns.",
        "#3b3a6b",
    ),
    ("慢慢升起来 · Up they go", "每一盏灯上都写着一句话。Every lantern carries a line of writing.", "#7a4a3a"),
    ("月亮出来了 · Moonrise", "月光铺在水面上，像一条路。The moon has laid a path across the water.", "#35507a"),
    (
        "船上的人 · The man in the boat",
        "阿远划船去捡落在水上的灯。Ayuan is out collecting the lanterns that came down.",
        "#2f5a58",
    ),
    ("再听一首 · One more tune", "琴还在弹，先别走。The strings are still playing. Stay a little.", "#5a3f6e"),
];

/// The conversations.
pub const SCENES: &[&[Line]] = &[
    &[
        ("", Notice, "第一批灯升起来了 · The first lanterns are up"),
        ("小满", Text, "晚上好呀，今天就不多说话了，陪大家看灯。"),
        ("橘子", Text, "好安静，一进来整个人都松下来了"),
        ("Tom", Text, "Good evening from a very rainy Leeds. This is exactly what I needed."),
        ("小满", Text, "Welcome, Tom! 借你一点我们这边的晴天 🌙"),
        ("Tom", Text, "I'll take it, thank you 😄"),
    ],
    &[
        ("晓晴", Text, "左边最高那盏快飞出画面了"),
        ("大鹏", Text, "那盏是我写的！写的是“少加班”"),
        ("橘子", Text, "哈哈哈哈难怪飞那么快，想逃"),
        ("晓晴", Text, "笑死，祝你如愿"),
        ("大鹏", Gift, "放了一盏河灯 🏮"),
    ],
    &[
        ("Nora", Text, "What do people usually write on the lanterns?"),
        ("小满", Text, "Wishes, mostly. Health, exams, someone far away."),
        ("晓晴", Text, "I wrote one for my grandma, she turned 90 this week"),
        ("Nora", Text, "That is lovely. Happy birthday to her 💛"),
        ("橘子", Text, "祝奶奶身体健康！"),
        ("晓晴", Text, "谢谢大家，我明天念给她听"),
    ],
    &[
        ("阿远", Join, "把船划进了画面 · rowed into the picture"),
        ("小满", Text, "船上那位就是阿远，大家打个招呼"),
        ("橘子", Text, "阿远好！戴斗笠的样子好像画里的人"),
        ("阿远", Text, "灯太亮了，看不清路，哈哈"),
        ("Tom", Text, "Is he all right out there on his own?"),
        ("阿远", Text, "All good! The water is like glass tonight."),
    ],
    &[
        ("Mei", Text, "The moon's reflection keeps breaking and coming back together. I could watch it for hours."),
        ("大鹏", Text, "水面那条光，像有人拿银粉撒了一路"),
        ("Mei", Text, "银粉 is a good word for it. Silver dust."),
        ("小满", Text, "你们俩可以写诗了"),
    ],
    &[
        ("橘子", Text, "这首曲子叫什么？好好听"),
        ("小满", Text, "没有名字，是我朋友在岸边随手弹的"),
        ("Nora", Text, "Sounds like a guzheng, but softer?"),
        ("小满", Text, "Close! A small lap harp, five notes to the octave."),
        ("Nora", Text, "Five is plenty, apparently."),
        ("橘子", Text, "配着水声正好"),
    ],
    &[
        ("", Notice, "又有三盏灯离岸了 · Three more have left the shore"),
        ("晓晴", Text, "有一盏一直不肯升，在水边转圈"),
        ("大鹏", Text, "它在等朋友"),
        ("晓晴", Text, "……你今天怎么这么会说"),
        ("小满", Text, "灯会让人变温柔，这是真的"),
    ],
    &[
        ("Lucía", Join, "在岸边坐下了 · found a spot by the water"),
        ("Lucía", Text, "Hola! Someone at work sent me the link. Where is this?"),
        ("小满", Text, "Hi Lucía! A lake outside Hangzhou, about an hour by bus."),
        ("Mei", Text, "And you don't need the app, just the page. I'm on my phone on the train."),
        ("Lucía", Text, "Same here, tram number 4. Best commute this year."),
    ],
    &[
        ("大鹏", Text, "肚子饿了，有没有人在吃东西"),
        ("橘子", Text, "刚煮了桂花酒酿圆子，配灯会绝了"),
        ("Tom", Text, "What is that? I can only offer toast."),
        ("橘子", Text, "Sweet rice wine soup with tiny dumplings and osmanthus 🌼"),
        ("Tom", Text, "Right. My toast and I are going to sit in the corner."),
        ("小满", Text, "烤面包也很好的，别难过 😂"),
    ],
    &[
        ("晓晴", Text, "右边山后面是不是有雾？"),
        ("小满", Text, "是的，夜里湖面凉，雾就慢慢起来了"),
        ("Mei", Text, "It makes the hills look like they were painted with water."),
        ("Nora", Text, "Three shades of blue, and then none."),
        ("晓晴", Text, "这句我要记下来"),
    ],
    &[
        ("橘子", Gift, "送出一束芦苇 🌾"),
        ("小满", Text, "谢谢橘子！左下角那丛芦苇点头了，看见没"),
        ("橘子", Text, "看见了，它说不客气"),
        ("Lucía", Text, "The reeds really do sway! I thought it was a photo at first."),
    ],
    &[
        ("阿远", Text, "捡到一盏落下来的，上面写：希望妈妈睡个好觉"),
        ("大鹏", Text, "这个必须重新点上"),
        ("阿远", Text, "点了，你们看船头"),
        ("Mei", Text, "Oh, I can see it. Going straight up."),
        ("小满", Text, "晚安，不知道是谁的妈妈 🌙"),
    ],
    &[
        ("Tom", Text, "How late do you stay out there?"),
        ("小满", Text, "Until the lamp oil says so. 一般十一点多收摊"),
        ("Tom", Text, "I'll keep you company until my kettle boils then."),
        ("晓晴", Text, "Tom 你的水壶大概要烧一晚上"),
        ("Tom", Text, "It is a very slow kettle."),
    ],
    &[
        ("Nora", Text, "Counting… I get twenty-two lanterns. Anyone else?"),
        ("大鹏", Text, "我数了三遍，三个答案"),
        ("橘子", Text, "它们会动啊！二十一？"),
        ("小满", Text, "官方答案：二十二。Nora 赢了！"),
        ("Nora", Text, "🎉 I'd like to thank my glasses."),
        ("小满", Gift, "送给 Nora 一盏小灯 🏮"),
    ],
    &[
        ("Mei", Text, "My daughter just asked where the lanterns go when they leave the picture."),
        ("阿远", Text, "告诉她：去找星星排队了"),
        ("Mei", Text, "She says that is a good answer and may she go too."),
        ("小满", Text, "等她长大一点，我们留一盏给她"),
    ],
    &[
        ("周周", Join, "来了 · joined"),
        ("周周", Text, "刚下班，赶上了吗？"),
        ("小满", Text, "赶上了，正是最好看的时候"),
        ("周周", Text, "太好了，我先不说话，看一会儿"),
        ("橘子", Text, "辛苦啦，靠着椅背慢慢看"),
    ],
];
