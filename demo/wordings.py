"""The words of the captions.

In each string, words are separated by blanks, _ stands for a blank within a phrase, *3 makes a word three times as
likely.
"""

from __future__ import annotations

COLOUR_WORDS = {
    "red": "red*4 crimson scarlet ruby cherry-red ruby-red",
    "orange": "orange*5 tangerine bright-orange",
    "yellow": "yellow*4 golden lemon lemon-yellow",
    "green": "green*4 emerald lime leaf-green emerald-green",
    "blue": "blue*4 azure navy cobalt sapphire sky-blue",
    "purple": "purple*3 violet*2 lilac plum",
    "pink": "pink*4 rosy magenta rose-coloured fuchsia",
    "white": "white*4 snow-white ivory snowy-white pale",
}
NOUNS = {
    "ball": "ball*5 sphere orb beach_ball rubber_ball bouncy_ball globe round_ball football",
    "balloon": "balloon*3 hot_air_balloon*3 hot-air_balloon*2 air_balloon aerostat",
    "bird": "bird*5 songbird birdie sparrow parrot robin little_bird finch",
    "boat": "boat*4 sailboat*2 sailing_boat ship sailing_ship yacht vessel dinghy",
    "car": "car*5 automobile vehicle motorcar motor_car sedan taxi auto",
}
# third person/participle
VERBS = {
    "ball": (
        "moves/moving floats/floating drifts/drifting flies/flying glides/gliding travels/travelling "
        "rolls/rolling bounces/bouncing"
    ),
    "balloon": (
        "drifts/drifting*2 floats/floating*2 flies/flying moves/moving glides/gliding travels/travelling sails/sailing"
    ),
    "bird": "flies/flying*3 glides/gliding soars/soaring moves/moving flaps/flapping heads/heading",
    "boat": (
        "sails/sailing*3 drifts/drifting moves/moving glides/gliding heads/heading cruises/cruising floats/floating"
    ),
    "car": (
        "drives/driving*3 moves/moving rolls/rolling goes/going travels/travelling races/racing "
        "cruises/cruising heads/heading"
    ),
}
# {} is the side asked for, {other} the opposite one
SIDEWAYS = (
    "to_the_{}*3", "{}", "{}wards", "{}ward", "towards_the_{}", "to_the_{}_side", "from_{other}_to_{}*2",
    "toward_the_{}_edge", "off_to_the_{}", "in_the_{}_direction", "across_the_picture_to_the_{}",
)  # fmt: skip
VERTICAL = {
    "up": (
        "rises/rising*2 ascends/ascending climbs/climbing goes_up/going_up lifts_off/lifting_off "
        "soars_up/soaring_up moves_up/moving_up*2 floats_up/floating_up*2 flies_up/flying_up*2 "
        "drifts_upwards/drifting_upwards climbs_higher/climbing_higher moves_upward/moving_upward "
        "flies_higher/flying_higher takes_off/taking_off rises_into_the_sky/rising_into_the_sky "
        "floats_up_into_the_air/floating_up_into_the_air goes_upwards/going_upwards"
    ),
    "down": (
        "descends/descending*2 sinks/sinking falls/falling*2 goes_down/going_down drops/dropping "
        "comes_down/coming_down moves_down/moving_down*2 floats_down/floating_down*2 "
        "flies_down/flying_down drifts_downwards/drifting_downwards moves_downward/moving_downward "
        "lowers_itself/lowering_itself lands/landing sinks_lower/sinking_lower "
        "floats_down_to_the_ground/floating_down_to_the_ground "
        "comes_down_from_the_sky/coming_down_from_the_sky"
    ),
}
STILL = {
    "air": (
        "hovers/hovering*2 hovers_in_place/hovering_in_place stays_still/staying_still "
        "does_not_move/not_moving hangs_still/hanging_still stands_still/standing_still "
        "floats_in_place/floating_in_place remains_still/remaining_still "
        "hangs_motionless/hanging_motionless stays_in_place/staying_in_place "
        "stays_where_it_is/staying_where_it_is"
    ),
    "ground": (
        "stays_still/staying_still stands_still/standing_still does_not_move/not_moving rests/resting "
        "is_parked/parked waits/waiting stays_in_place/staying_in_place stands/standing "
        "remains_still/remaining_still sits_motionless/sitting_motionless "
        "stays_where_it_is/staying_where_it_is"
    ),
}
# a normal pace goes unsaid
SPEED_WORDS = {
    "slow": "slowly*2 gently calmly leisurely at_a_slow_pace",
    "normal": "",
    "fast": "quickly*2 fast*2 rapidly swiftly at_high_speed",
}
PLACES = {
    "sea": "sea*4 ocean*2 water blue_sea open_sea waves open_water calm_sea blue_ocean bay lake",
    "hills": (
        "green_hills*3 hills*3 meadows green_meadows green_valley countryside grassland green_fields "
        "fields rolling_hills pastures"
    ),
    "desert": ("desert*4 sand_dunes dunes sandy_desert sandy_dunes sand sahara hot_desert golden_dunes dry_desert"),
    "mountains": (
        "mountains*2 snowy_mountains*3 snowy_peaks mountain_landscape snow-capped_mountains peaks alps "
        "snow-covered_mountains white_mountains snowy_landscape snow"
    ),
}
PREPOSITIONS = {
    "air": "over*3 above*2 in_front_of in across near",
    "boat": "on*3 over across at in",
    "car": "through*2 in*2 across over past",
}
HOURS = {
    "day": (
        "during_the_day at_day in_daylight on_a_sunny_day under_a_blue_sky at_noon in_bright_sunshine "
        "in_the_afternoon by_day at_midday in_full_sun on_a_bright_day in_the_sunshine in_the_daytime "
        "on_a_clear_day on_a_sunny_morning"
    ),
    "sunset": (
        "at_sunset*3 at_dusk in_the_evening as_the_sun_goes_down at_golden_hour in_the_evening_light "
        "as_the_sun_sets under_an_orange_sky at_twilight in_the_glow_of_the_setting_sun at_sundown "
        "in_the_warm_light_of_sunset during_sunset in_the_dusk"
    ),
    "night": (
        "at_night*3 under_the_stars in_the_moonlight at_midnight after_dark by_moonlight "
        "under_a_starry_sky late_at_night in_the_dark under_the_moon on_a_moonlit_night during_the_night "
        "under_a_dark_night_sky in_the_night"
    ),
}
HOUR_TAGS = {
    "day": "day daytime daylight sunny noon bright_day sunshine",
    "sunset": "sunset*2 dusk evening twilight golden_hour orange_sky sundown",
    "night": "night*2 midnight moonlight starry_night night_time dark stars",
}
HOUR_ADJECTIVES = {
    "day": "sunny sunlit daytime",
    "sunset": "sunset evening dusky",
    "night": "moonlit starry dark nighttime",
}
SIZES = "big large little small tiny huge shiny old new nice lovely cute bright lone single round pretty wonderful"
BEFORE = (
    "a video of", "an animation of", "cinematic shot,", "a clip of", "a beautiful scene:", "wide shot of",
    "footage of", "a picture of", "please show", "show me", "i want to see", "a cartoon of", "here is",
    "imagine", "a short film of", "draw",
)  # fmt: skip
AFTER = (
    "high quality", "cinematic", "4k", "beautiful, detailed", "flat illustration style", "smooth animation",
    "masterpiece", "very calm mood", "cartoon style", "best quality", "vivid colours", "a peaceful scene",
    "trending on artstation", "soft light", "no people",
)  # fmt: skip
# words that mean nothing here
STRANGE = (
    "wonderful quiet strange friendly soft dreamy happy nobody music poem story camera lens gentle wind "
    "breeze cool warm summer winter holiday world alone free forever today suddenly really very quite "
    "somewhere magic calm tale film artist paper wooden plastic glossy"
)
# what stands in negative prompts
NEGATIVES = (
    "blurry", "low quality", "worst quality", "jpeg artifacts", "static", "watermark", "text", "deformed",
    "ugly", "overexposed", "low resolution", "noise", "cropped", "duplicate", "distorted", "flicker",
    "subtitles", "messy background", "still picture", "bad anatomy", "extra limbs", "grainy", "out of focus",
    "bad drawing",
)  # fmt: skip
