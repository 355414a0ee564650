"""Elhoseiny et al., "Exploring the Challenges towards Lifelong Fact Learning", ACCV 2018: figures of its public code.

Read in the README of github.com/Elhoseiny-VisionCAIR-Lab/lifelong_fact_learning (HEAD d23bc45): 6DS mid-scale, the
share of test pictures whose fact is among the five most similar ("K5"), in percent, after the last of four tasks.
"""

#: (how facts were split, method) → tasks 1 to 4, and their mean.
TOP_FIVE = {
    ("random", "finetune"): (72.77, 40.31, 33.87, 84.02, 57.74),
    ("random", "mas"): (78.82, 51.06, 48.17, 86.71, 66.19),
    ("semantic", "finetune"): (16.24, 35.63, 31.97, 8.86, 23.18),
    ("semantic", "mas"): (16.25, 35.63, 33.64, 15.51, 25.26),
}
#: λ there.
STRENGTH = 5.0
