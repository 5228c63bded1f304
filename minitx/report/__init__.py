"""Report: the three theories at laptop scale, in one run and on one page.

``minitx report [TEXT] --out DIR`` trains for each theory, beside what it predicts, and writes ``index.html`` and
``results.json``, and nothing else. Nothing is computed here: every part is that of a theory's own command.

============  ================================  ===============================  =====================================
part          without a TEXT, trained on        with a TEXT, trained on          run, and part of the page
============  ================================  ===============================  =====================================
associations  an embedded corpus                its windows                      ``associations.command``, ``.page``
topics        documents of known topics, in     its windows, whose topics are    ``topics.command_documents`` or
              stages 1a, 1b and 2               fitted                           ``.command_text``, ``topics.page``
next token    samples of known priorities       its prefixes                     ``next_token.command``, ``.page``
============  ================================  ===============================  =====================================

A theory that cannot use the TEXT is trained on what it has without one, and the page says why: topics of a text need
scikit-learn, and documents in which words of one topic, and of two, meet.

The rooms of the theories have the equations: ``help(minitx.associations)``, and of ``topics`` and ``next_token``.
"""
