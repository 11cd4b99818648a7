"""The report: results as text, tables, sentences, figures, HTML and SVG."""
