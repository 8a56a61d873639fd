"""The words around the facets: what people say, tag and print in a short video."""

from __future__ import annotations

__all__ = ["ASR", "HOOKS", "JUNK", "OCR_ERRORS", "TAGS"]

#: Ends of titles. None is known to the oracle, so no title that has one can be parsed as a query.
HOOKS = {
    "zh": (
        "，看完才懂",
        "，太绝了",
        "，建议收藏",
        "，谁懂啊",
        "！一口气看完",
        "，第一次见",
        "…后劲太大",
    ),
    "en": (
        ", wait for it",
        ", must see",
        " you missed",
        "! so good",
        ", watch till end",
        ", no way",
    ),
}

#: Hashtags that say nothing.
TAGS = {
    "zh": ("热门", "上热搜", "推荐给朋友", "涨知识", "日常分享"),
    "en": ("fyp", "viral", "trending", "foryou", "daily"),
}

#: What else is printed on a screen.
JUNK = ("@user", "00:15", "LIVE", "1080P", "REC", "▶", "关注", "点赞", "subscribe")

#: Characters that are easily taken for others.
OCR_ERRORS = dict(
    zip(
        "人大天土未己日目木白王第教合解对花长雨山",
        "入太夫士末已曰自本百玉弟敎台觧对化长两出",
        strict=True,
    )
) | {
    "o": "0",
    "l": "1",
    "i": "l",
    "m": "rn",
    "e": "c",
    "g": "9",
    "b": "6",
    "s": "5",
    "u": "v",
    "h": "n",
}

#: Clauses of speech by what they say; "{}" is where a facet's value is said.
ASR = {
    "zh": {
        "opening": ("大家好", "哈喽", "家人们", "欢迎回来", "嗯 大家好"),
        "filler": ("嗯", "那个", "就是说", "然后", "呃"),
        "entity": ("今天说 {}", "这期是 {}", "一起看 {}", "我们来聊 {}"),
        "episode": ("在 {} 里", "看到 {}", "就是 {}"),
        "aspect": ("重点是 {}", "讲讲 {}", "主要看 {}"),
        "intent": ("做个 {}", "{} 来了", "这是 {}"),
        "style": ("风格 {}", "全程 {}"),
        "place": ("在 {} 拍的", "人在 {}"),
        "time": ("{} 录的", "{} 那会儿"),
        "other entity": ("不是 {}", "跟 {} 不一样", "下次再说 {}"),
        "other aspect": ("不聊 {}", "下期再讲 {}", "先不管 {}"),
    },
    "en": {
        "opening": ("hi everyone", "hey guys", "welcome back", "okay so", "um hello"),
        "filler": ("um", "you know", "like", "so yeah", "uh"),
        "entity": ("today it is {}", "this one is {}", "let us look at {}", "we talk about {}"),
        "episode": ("in {}", "it is {}", "right from {}"),
        "aspect": ("mainly the {}", "all about {}", "focus on {}"),
        "intent": ("here is a {}", "doing a {}", "a quick {}"),
        "style": ("kind of {}", "very {}"),
        "place": ("filmed in {}", "here in {}"),
        "time": ("recorded {}", "it was {}"),
        "other entity": ("not {}", "unlike {}", "{} comes next time"),
        "other aspect": ("skipping {}", "no {} today", "{} is for later"),
    },
}
