#!/usr/bin/env bash
# One policy for both robots and nine tasks, from nothing: demonstrations, cloning, corrections, and cloning on with both.
# Run it in the root of a checkout; each command goes on where it was interrupted.
# What ships was made of the same stages, in pieces: vla/pretrained/README.md.
set -euo pipefail

widowx='tasks=[widowx_spoon_on_towel,widowx_carrot_on_plate,widowx_stack_cube,widowx_put_eggplant_in_basket]'
google='tasks=[google_robot_pick_coke_can,google_robot_move_near,google_robot_open_drawer,google_robot_close_drawer]'
harder='tasks=[google_robot_pick_coke_can,google_robot_move_near,google_robot_open_drawer]'
apple='tasks=[google_robot_place_apple_in_closed_top_drawer]'

collect() { cadence-collect "$2" "episodes=$3" "scene=$4" seed=1 "out=runs/demonstrations/$1"; }
collect widowx_mixed "$widowx" 200 mixed
collect widowx "$widowx" 100 official
collect google_mixed "$google" 140 mixed
collect google "$google" 140 official
collect apple "$apple" 70 official

cadence-train recipe=tiny

correct() {
    cadence-dagger checkpoint=runs/train/tiny/checkpoint accel=exact share=0.7 "$2" "episodes=$3" "scene=$4" seed=11 "out=runs/corrections/$1"
}
correct widowx "$widowx" 50 official
correct google "$harder" 48 official
correct widowx_mixed "$widowx" 16 mixed
correct apple "$apple" 24 official

cadence-train recipe=tiny_corrected
cadence-calibrate checkpoint=runs/train/tiny_corrected/checkpoint 'dataset=[runs/demonstrations/widowx,runs/demonstrations/google]'
