"""Time-outs of a process that stood still: what it waited for may have come meanwhile.

A process that was stopped, or starved, or busy for long in one callback finds its time-outs over before its event loop
has read anything. So nobody counts as silent until the loop has had time to look.
"""

LOOK_AGAIN_SECONDS = 0.01  # Long enough for one turn of the loop.
