"""Workflows: calls that follow calls.

    canvas    signatures: what users hold
    compose   chain, group, chord, signature: how they are made
    shape     the one form that every way of writing a workflow is brought into
    freeze    ids for all of it, before anything is sent
    launch    signature and arguments -> the first messages
    advance   call and outcome -> the messages and results that follow
    ports     what a join of a chord's members has to offer

    client    a signature is sent
    inside    what a running task does to the workflow it is in
    builtin   tasks that every worker has
    join      chords joined: by a queue of their own, or in a store

Shape, freeze, launch and advance are pure: they decide, and the sender and the worker act.
"""
