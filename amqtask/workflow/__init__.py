"""Workflows: calls that follow calls.

    canvas    Signature, chain, group, chord: what users write
    shape     the one form that every way of writing a workflow is brought into
    freeze    ids for all of it, before anything is sent
    launch    signature and arguments -> the first messages
    advance   call and outcome -> the messages and results that follow
    ports     what a join of a chord's members has to offer

All but canvas is pure: it decides, and the sender and the worker act.
"""
