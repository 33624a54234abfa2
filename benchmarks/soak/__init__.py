"""Hours of mixed faults, and whether anything grows: ``python -m benchmarks.soak``.

``trend``   whether a series of samples grows
``origins`` a server of many names that answers, fails, hangs up and dawdles
``driver``  calls, cancellations, an exporter whose collector comes and goes; samples
``report``  the samples as a file and as a picture
"""
