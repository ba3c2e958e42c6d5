"""`palate bench`: how fast Palate is on this machine, as ratios against what people would pick instead.

Every contestant runs in a process of its own and they take turns, so that whatever else the machine does meets all of
them, each one's memory can be told, and one library's settings cannot touch another's. Medians count.
docs/performance.md says what was found; its tables are made from the JSON that these commands write.
"""
