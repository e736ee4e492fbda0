"""Artifacts by other hands in their runtimes, each in a process of its own.

isolated         what the rest of the house sees: a runner that is somewhere else
runtime_process  the child, as its parent sees it: questions, patience, what it died of
serving          the child's own side, which shuts itself in and answers
frames           how questions and answers cross the pipes
limits           what a run may take, in memory and time
links            where an artifact's links may lead
"""
