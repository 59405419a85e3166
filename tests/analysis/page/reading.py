"""A page as its reader gets it: text, tables and pictures, with the mark-up checked."""

from html.parser import HTMLParser

VOID = {"meta", "img", "input", "br"}


class Page(HTMLParser):
    """Checks that every element is closed, and collects what is in them."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.open, self.seen, self.ids, self.links = [], [], [], []
        self.text, self.tables, self.labels, self.elements = [], [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.seen.append(tag)
        self.elements.append((tag, attrs))
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [attrs["href"]] if tag == "a" else []
        if attrs.get("role") in ("img", "region"):
            self.labels.append(attrs.get("aria-label"))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("th", "td"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open or "script" in self.open:
            return
        self.text.append(data)
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data

    def words(self):
        """All text, with single blanks."""
        return " ".join(" ".join(self.text).split())

    def rows(self, table=0):
        """First cell -> the others."""
        return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in self.tables[table]}

    def of_class(self, tag, name):
        """Attributes of the elements that have this class."""
        return [a for t, a in self.elements if t == tag and name in a.get("class", "").split()]
