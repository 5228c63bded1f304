"""Report: the three theories at laptop scale, in one run and on one page.

``minitx report [TEXT] --out DIR`` trains for each theory, beside what it predicts, and writes ``index.html`` and
``results.json``, and nothing else. Nothing is computed here: every part is that of a theory's own command.

==================  ============================================  ==========================  ==========================
part                what is trained                               run                         part of the page
==================  ============================================  ==========================  ==========================
associations        the one-hot model on a text                   ``associations.command``    ``associations.page.part``
topics              stages 1a, 1b, 2 on drawn documents           ``topics``                  ``topics.page.part``
                                                                  ``.command_documents``
next token          attention of the last token on drawn samples  ``next_token.command``      ``next_token.page.part``
==================  ============================================  ==========================  ==========================

The rooms of the theories have the equations: ``help(minitx.associations)``, and of ``topics`` and ``next_token``.
"""
