"""Batches: many models from one list, each converted, validated and reported like a single model.

listing      the list: a CSV file, checked as a whole before anything runs
convert      one model, in a worker process; its result is an outcome
cache        the outcomes of finished models, so that checking them again costs little
run          the models that have to run, on the workers of an executor
progress     the progress display
tables       results.csv, summary.md, junit.xml of the whole batch
page         report.html of the whole batch
"""
