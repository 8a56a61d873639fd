"""Names of the simulated world: four kinds of series, each with four entities.

``series: entity, entity, ...;`` and each name is written ``Chinese=English``. The names are made
up, apart from the dishes.
"""

from __future__ import annotations

__all__ = ["SERIES"]

#: For each kind, its series and their entities.
SERIES = {
    "drama": """
        长安夜雨=changan rain: 沈星河=shen xinghe, 顾长歌=gu changge,
            苏锦年=su jinnian, 裴渡=pei du;
        云上书院=cloud academy: 陆知遥=lu zhiyao, 温如玉=wen ruyu,
            江离=jiang li, 白砚=bai yan;
        烽火归途=beacon road: 霍去尘=huo quchen, 萧山河=xiao shanhe,
            叶红袖=ye hongxiu, 罗成=luo cheng;
        深海来信=deep sea letters: 周渔=zhou yu, 林默=lin mo,
            何潮生=he chaosheng, 宋南星=song nanxing;
        锦绣医心=silk physician: 许青黛=xu qingdai, 方决明=fang jueming,
            杜若=du ruo, 秦半夏=qin banxia;
        星港七号=star harbor: 韩启明=han qiming, 赵银河=zhao yinhe,
            阿尔法=alpha nine, 唐引力=tang yinli;
        老街茶馆=old tea house: 马三爷=uncle ma, 胡掌柜=boss hu,
            小翠=xiao cui, 孟先生=mister meng;
        青石镇迷案=bluestone case: 程捕头=captain cheng, 柳如烟=liu ruyan,
            仵作老陈=coroner chen, 段无咎=duan wujiu;
        北岸谜踪=north shore: 艾拉=ella marsh, 杰克曼=jack mann,
            多萝西=dorothy pike, 雷蒙德=raymond vale;
        红屋顶农场=red roof farm: 贝蒂=betty crow, 汉克=hank stone,
            露西尔=lucille fox, 奥利弗=oliver finch;
        暗夜公会=night guild: 塞琳娜=selena grey, 维克多=victor ash,
            玛尔塔=marta quinn, 伊戈尔=igor black;
        时间修理铺=clock repair: 钟伯=grandpa zhong, 夏弥=xia mi,
            纪元=ji yuan, 秒针先生=mister tick;
        雪国列岛=snow islands: 冬堇=dong jin, 白鹭飞=bai lufei,
            岚夫人=lady lan, 寒山客=hanshan ke;
        都市合租记=flat mates: 钱多多=qian duoduo, 吴一凡=wu yifan,
            冯晓薇=feng xiaowei, 卓航=zhuo hang;
        铁轨尽头=end of rails: 列车长老郑=conductor zheng, 丁雨桐=ding yutong,
            莫小北=mo xiaobei, 佟远=tong yuan;
    """,
    "game": """
        王城远征=kingdom march: 霜狼=frost wolf, 影刃=shadow blade,
            圣光使=light herald, 铁壁=iron wall;
        幻海迷航=mirage sea: 潮汐女巫=tide witch, 珊瑚骑士=coral knight,
            深渊歌者=abyss singer, 浪人阿海=ronin hai;
        机甲黎明=mecha dawn: 赤焰=crimson flame, 苍穹九号=sky unit,
            重锤=war hammer, 幽灵机=ghost frame;
        森之物语=forest tale: 鹿灵=deer spirit, 蘑菇博士=doctor mushroom,
            藤蔓公主=vine princess, 夜莺=nightingale;
        沙丘猎人=dune hunter: 蝎王=scorpion king, 流沙客=quicksand,
            蜃景师=mirage mage, 驼铃=camel bell;
        像素地牢=pixel dungeon: 骷髅厨子=bone chef, 史莱姆王=slime king,
            盗贼米米=thief mimi, 石像鬼=gargoyle;
        极速霓虹=neon speed: 夜枭=night owl, 雷暴=thunderstorm,
            猎豹小姐=miss cheetah, 零度=zero point;
        三界棋局=realm chess: 判官=the judge, 狐仙=fox fairy,
            雷公=thunder duke, 孟婆=lady meng;
        末日农庄=doom farm: 稻草王=scarecrow king, 变异南瓜=mutant pumpkin,
            老井=old well, 牧羊犬阿黄=shepherd huang;
        星际拾荒=star scavenger: 锈铁=rusty iron, 维修员七=mechanic seven,
            虫母=brood mother, 星尘=stardust;
        蒸汽都会=steam city: 齿轮侯爵=gear marquis, 发条少女=clockwork girl,
            煤烟=coal smoke, 飞艇老爹=airship papa;
        古墓回声=tomb echo: 守陵人=tomb keeper, 木乃伊王=mummy king,
            火把少年=torch boy, 蛇女=snake lady;
        弹珠英雄=marble heroes: 滚滚=rollo, 弹弹=bouncer,
            磁铁侠=magnet man, 玻璃心=glass heart;
        雪域狙击=snow sniper: 白鸮=white owl, 冰镜=ice mirror,
            猎风=wind hunter, 老烟枪=old smoker;
        糖果王国=candy realm: 棉花糖将军=general marshmallow, 薄荷=mint fairy,
            焦糖骑士=caramel knight, 酸梅=sour plum;
    """,
    "device": """
        云雀=lark: 夜航手机=nightfly phone, 晨曦平板=dawn tablet,
            轻羽笔记本=feather laptop, 候鸟手表=migrant watch;
        玄石=obsidian: 黑曜手机=onyx phone, 磐石本=bedrock laptop,
            墨玉平板=jade tablet, 岩芯掌机=rockcore handheld;
        极光=aurora: 极夜手机=polar phone, 冰川本=glacier laptop,
            流光平板=gleam tablet, 北斗手表=dipper watch;
        木星=jupiter: 风暴掌机=storm handheld, 轨道手机=orbit phone,
            卫星手表=moonlet watch, 光环本=halo laptop;
        青鸟=bluebird: 信使手机=courier phone, 画板平板=canvas tablet,
            云笺本=letter laptop, 知时手表=hourly watch;
        飞鱼=flyingfish: 浪花手机=surf phone, 潜行掌机=stealth handheld,
            珍珠平板=pearl tablet, 灯塔本=beacon laptop;
        回声=echonic: 和弦手机=chord phone, 节拍手表=tempo watch,
            交响本=symphony laptop, 独奏平板=solo tablet;
        量子=quantum: 叠加本=superpose laptop, 纠缠手机=entangle phone,
            能级掌机=level handheld, 波函平板=wave tablet;
        橙子=orange co: 果核手机=kernel phone, 橙皮平板=peel tablet,
            果汁掌机=juice handheld, 柑橘本=citrus laptop;
        山海=shanhai: 麒麟本=kirin laptop, 鲲鹏手机=kunpeng phone,
            精卫手表=jingwei watch, 白泽平板=baize tablet;
        折纸=origami: 纸鹤折叠屏=crane foldable, 纸船手机=paperboat phone,
            纸鸢平板=kite tablet, 纸灯本=lantern laptop;
        雷鸟=thunderbird: 闪电手机=bolt phone, 霹雳掌机=crackle handheld,
            惊雷本=clap laptop, 雨燕手表=swift watch;
        蓝湾=bluebay: 海岸手机=coast phone, 礁石本=reef laptop,
            贝壳平板=shell tablet, 潮汐手表=tidal watch;
        火种=ember: 炽热掌机=blaze handheld, 余烬手机=cinder phone,
            熔炉本=furnace laptop, 火花手表=spark watch;
        微光=glimmer: 萤火手机=firefly phone, 烛台平板=candle tablet,
            拂晓本=daybreak laptop, 星芒手表=starry watch;
    """,
    "dish": """
        川菜=sichuan food: 宫保鸡丁=kung pao chicken, 麻婆豆腐=mapo tofu,
            水煮鱼=boiled fish, 回锅肉=twice cooked pork;
        粤菜=cantonese food: 白切鸡=white cut chicken, 叉烧=char siu,
            虾饺=shrimp dumpling, 煲仔饭=claypot rice;
        湘菜=hunan food: 剁椒鱼头=chili fish head, 小炒肉=stir fried pork,
            臭豆腐=stinky tofu, 毛氏红烧肉=braised belly;
        东北菜=dongbei food: 锅包肉=guo bao rou, 地三鲜=di san xian,
            酸菜白肉=pickled cabbage pork, 铁锅炖=iron pot stew;
        江浙菜=jiangzhe food: 东坡肉=dongpo pork, 龙井虾仁=longjing shrimp,
            狮子头=lion head, 叫花鸡=beggar chicken;
        西北面食=northwest noodles: 油泼面=biang noodles, 肉夹馍=rou jia mo,
            凉皮=liang pi, 羊肉泡馍=lamb paomo;
        火锅=hotpot: 毛肚=beef tripe, 鸳鸯锅=twin pot,
            虾滑=shrimp paste, 冻豆腐=frozen tofu;
        早餐=breakfast: 煎饼果子=jianbing, 小笼包=soup dumpling,
            豆浆油条=soymilk youtiao, 胡辣汤=hulatang;
        甜品=dessert: 双皮奶=milk pudding, 杨枝甘露=mango sago,
            提拉米苏=tiramisu, 驴打滚=lvdagun;
        日料=japanese food: 寿司卷=sushi roll, 天妇罗=tempura,
            味噌拉面=miso ramen, 玉子烧=tamagoyaki;
        韩餐=korean food: 石锅拌饭=bibimbap, 泡菜汤=kimchi soup,
            炸鸡块=korean chicken, 辣炒年糕=tteokbokki;
        意餐=italian food: 千层面=lasagna, 玛格丽特披萨=margherita pizza,
            奶油意面=carbonara, 烩饭=risotto;
        墨西哥菜=mexican food: 塔可=tacos, 牛油果酱=guacamole,
            玉米饼汤=tortilla soup, 芝士卷饼=quesadilla;
        印度菜=indian food: 黄油咖喱鸡=butter chicken, 烤饼=garlic naan,
            玛萨拉茶=masala chai, 菠菜奶酪=palak paneer;
        烧烤=barbecue: 羊肉串=lamb skewer, 烤茄子=grilled eggplant,
            烤生蚝=grilled oyster, 烤鸡翅=grilled wings;
    """,
}
