"""The learner's loop: a folder of one's own versions, graded one by one."""
