"""A page about several runs and studies, which opens in a browser without a server or a network.

`page.make_page` puts it together: charts that can be zoomed, tables that sort, predictions,
configuration and environment, in one file with the plotting library inside.
"""
