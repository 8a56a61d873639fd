"""The words of the simulated world: every value of every facet, in Chinese and in English.

A value is written ``Chinese=English``; alternatives of one language are parted by ``|`` and the
first is the usual form. The names of series and
entities are in `names`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ssra_engine.simulation.names import SERIES

__all__ = [
    "FACETS",
    "FILLERS",
    "IMPORTANT",
    "KINDS",
    "LANGUAGES",
    "NON_CRITICAL",
    "VALUES",
    "Value",
]

LANGUAGES = ("zh", "en")
FACETS = ("series", "entity", "episode", "aspect", "intent", "style", "place", "time")
#: A document that misses one of these, when asked for, is at most partly relevant.
IMPORTANT = ("aspect", "intent", "episode")
#: A document that misses one of these, when asked for, may still satisfy most of the intent.
NON_CRITICAL = ("style", "place", "time")
KINDS = ("drama", "game", "device", "dish")


@dataclass(frozen=True)
class Value:
    """One value of a facet.

    Attributes:
        forms: for "zh" and "en", the ways to say it; the first is the usual one.
        kind: the kind of entity it applies to, None for every kind.
        parent: of an entity, the position of its series in ``VALUES["series"]``; otherwise -1.
    """

    forms: dict[str, tuple[str, ...]]
    kind: str | None = None
    parent: int = -1

    @property
    def name(self) -> str:
        """The canonical name, unique within the facet: the usual English form."""
        return self.forms["en"][0]


_ASPECTS = {
    "drama": "结局|大结局=ending|finale, 名场面=best scene, 穿搭=outfit, 台词=quotes, "
    "打戏=fight scene, 身世=backstory, 感情线=love story, 配乐=soundtrack, 演技=acting, "
    "伏笔=plot clues, 妆容=makeup",
    "game": "出装=item build, 连招=combo, 皮肤=skins, 技能=skills, 走位=positioning, "
    "阵容=team comp, 彩蛋=easter eggs, 背景故事=lore, 建模=character model, 天赋=talent tree, "
    "语音=voice lines",
    "device": "续航|电池=battery life|battery, 音质=sound quality, 屏幕=display, "
    "做工=build quality, 价格|多少钱=price, 散热=cooling, 充电=charging, 手感=grip feel, "
    "配件=accessories, 系统=software, 跑分=benchmark",
    "dish": "火候=heat control, 调料=seasoning, 刀工=knife work, 摆盘=plating, 热量=calories, "
    "配菜=side dishes, 食材=ingredients, 腌制=marinade, 蘸料=dipping sauce, 历史=origin story, "
    "失败原因=common mistakes",
}

_INTENTS = (
    "教程|教学=tutorial|guide, 解说|讲解=explainer|explained, 盘点=ranking, 测评|评测=review, "
    "合集=compilation, 预告=teaser, 反应=reaction, 吐槽=rant, 对比=comparison, "
    "花絮=behind the scenes, 问答=faq, 挑战=challenge"
)

_STYLES = (
    "搞笑=funny, 治愈=cozy, 高清=hd, 慢动作=slow motion, 手绘=hand drawn, 复古=retro, "
    "硬核=hardcore, 沉浸式=immersive, 无声=silent, 双语=bilingual, 快节奏=fast paced, "
    "温情=heartfelt, 悬疑=suspense, 极简=minimalist"
)

_PLACES = (
    "北京=beijing, 成都=chengdu, 上海=shanghai, 广州=guangzhou, 西安=xian, 杭州=hangzhou, "
    "重庆=chongqing, 武汉=wuhan, 香港=hong kong, 台北=taipei, 东京=tokyo, 首尔=seoul, "
    "伦敦=london, 巴黎=paris, 纽约=new york, 悉尼=sydney, 横店=hengdian, 三亚=sanya, "
    "厦门=xiamen, 曼谷=bangkok"
)

_TIMES = (
    "元宵=lantern festival, 端午=dragon boat, 清晨=early morning, 雨天=rainy day, "
    "2023年|2023=2023, 2024年|2024=2024, 2025年|2025=2025, 春节=spring festival, 中秋=mid autumn, "
    "暑假=summer break, 周末=weekend, 深夜=late night, 国庆=national day, 圣诞=christmas, "
    "开学季=back to school, 双十一=singles day"
)

#: Words of a query that ask for nothing.
FILLERS = {
    "zh": ("的,了,吗,呢,视频,短视频,想看,求,看看,怎么样,有没有,关于,一下,请问,给我,推荐,最新"),
    "en": (
        "a,an,the,of,in,on,at,for,with,from,and,about,to,my,me,i,is,are,any,please,show,find,"
        "watch,see,want,video,videos,clip,clips,short,latest,best,good"
    ),
}


def _value(text: str, kind: str | None = None, parent: int = -1) -> Value:
    zh, en = (tuple(side.split("|")) for side in text.strip().split("="))
    return Value({"zh": zh, "en": en}, kind, parent)


def _listed(text: str, kind: str | None = None) -> tuple[Value, ...]:
    return tuple(_value(part, kind) for part in text.split(","))


def _series_and_entities() -> tuple[tuple[Value, ...], tuple[Value, ...]]:
    series: list[Value] = []
    entities: list[Value] = []
    for kind, block in SERIES.items():
        for line in block.strip().rstrip(";").split(";"):
            name, members = line.split(":")
            entities.extend(_value(part, kind, len(series)) for part in members.split(","))
            series.append(_value(name, kind))
    return tuple(series), tuple(entities)


def _episodes() -> tuple[Value, ...]:
    shows = (_value(f"第{n}集=episode {n}|ep {n}", "drama") for n in range(1, 13))
    levels = (_value(f"第{n}关=level {n}", "game") for n in range(1, 13))
    return (*shows, *levels)


def _all_values() -> dict[str, tuple[Value, ...]]:
    series, entities = _series_and_entities()
    return {
        "series": series,
        "entity": entities,
        "episode": _episodes(),
        "aspect": tuple(v for kind, text in _ASPECTS.items() for v in _listed(text, kind)),
        "intent": _listed(_INTENTS),
        "style": _listed(_STYLES),
        "place": _listed(_PLACES),
        "time": _listed(_TIMES),
    }


#: Every value of each facet, in the order of `FACETS`.
VALUES: dict[str, tuple[Value, ...]] = _all_values()
