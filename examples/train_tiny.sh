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

# Third part: recoloured furniture (every variant in turn), perturbed scenes, conveyors, and the second part's mistakes.
vary() { cadence-collect "tasks=[$2]" "episodes=$3" variants=null "out=runs/demonstrations/$1" "${@:4}"; }
four=widowx_spoon_on_towel,widowx_stack_cube,widowx_carrot_on_plate,widowx_put_eggplant_in_basket
drawers=google_robot_open_drawer,google_robot_close_drawer
stow=google_robot_place_apple_in_closed_top_drawer
vary google_variants "$drawers,$stow,google_robot_move_near" 40 seed=21 shard=8 hold_steps=5
vary perturbed_widowx "$four" 32 seed=22 shard=4 setting=variant_aggregation
vary perturbed_google google_robot_pick_coke_can,google_robot_move_near,google_robot_open_drawer 32 seed=22 shard=4 \
    setting=variant_aggregation
cadence-collect 'tasks=[conveyor_widowx]' episodes=120 seed=21 shard=8 out=runs/demonstrations/conveyor_widowx
cadence-collect 'tasks=[conveyor_google_robot]' episodes=120 seed=21 shard=8 out=runs/demonstrations/conveyor_google

again() {
    cadence-dagger checkpoint=runs/train/tiny_corrected/checkpoint accel=exact share=0.85 "tasks=[$2]" "episodes=$3" seed=21 \
        "out=runs/corrections/$1" "${@:4}"
}
again drawers google_robot_open_drawer 96 variants=null shard=8 hold_steps=8
again widowx2 widowx_put_eggplant_in_basket,widowx_stack_cube 80 hold_steps=5
again apple2 "$stow" 48 variants=null shard=4 hold_steps=5
again google2 google_robot_close_drawer,google_robot_move_near 32 variants=null shard=8 hold_steps=5

cadence-train recipe=tiny_varied
cadence-calibrate checkpoint=runs/train/tiny_varied/checkpoint 'dataset=[runs/demonstrations/widowx,runs/demonstrations/google]'

# tiny_tokens: the shipped tiny's trunk learns to say in words what the shipped tiny answers, in five of the datasets above,
# then, twice, in states that its own words led to.
say() {
    cadence-dagger "checkpoint=runs/train/$speaker/checkpoint" accel=jacobi share=0.8 "tasks=[$2]" "episodes=$3" \
        "out=runs/corrections/$1" "${@:4}"
}
cadence-train recipe=tiny_tokens
speaker=tiny_tokens
say tokens_widowx "$four" 32 seed=31 shard=8
say tokens_google google_robot_move_near,google_robot_pick_coke_can 16 seed=31 shard=4 variants=null
say tokens_drawers "$drawers" 8 seed=31 shard=4 variants=null
say tokens_apple "$stow" 8 seed=31 shard=4 variants=null
cadence-train recipe=tiny_tokens_corrected

speaker=tiny_tokens_corrected
say tokens_google2 google_robot_move_near 48 seed=41 shard=4 variants=null
say tokens_apple2 "$stow" 32 seed=41 shard=4 variants=null
say tokens_drawers2 "$drawers" 20 seed=41 shard=4 variants=null
say tokens_widowx2 widowx_stack_cube,widowx_put_eggplant_in_basket 32 seed=41 shard=4
say tokens_coke google_robot_pick_coke_can 12 seed=41 shard=4 variants=null
say tokens_google3 google_robot_move_near 80 seed=42 shard=4 variants=null
say tokens_mixed "google_robot_move_near,google_robot_pick_coke_can,$drawers" 16 seed=42 shard=4 scene=mixed
cadence-train recipe=tiny_tokens_again
