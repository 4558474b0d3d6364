"""The links at the end of each page: what a technology needs and why, and what it leads to.

They come from the graph, never typed: `python -m techtree.tree.links` renews them in every README.md, and a
test keeps them current. Who reads on a code host walks the map with them.
"""

from techtree import atomic
from techtree.tree.description import LINKS
from techtree.tree.graph import Tree, load_tree
from techtree.tree.technology import Technology

NEEDS, LEADS_TO = "Needs", "Leads to"
"""The headings, in order, after those of `description.SECTIONS`."""


def links(tree: Tree, tech: Technology) -> str:
    """Return the two sections as Markdown."""
    needs = [f"- {_name(tree, tech, need.tech)}: {need.why}" for need in tech.requires]
    leads = []
    for later in tree.leads_to(tech.id):
        why = next((need.why for need in later.requires if need.tech == tech.id), "") or later.summary
        leads.append(f"- {_name(tree, tech, later.id)}: {why}")
    lines = [LINKS, "", f"## {NEEDS}", "", *(needs or ["Nothing: this is where the tree begins."]), ""]
    return "\n".join([*lines, f"## {LEADS_TO}", "", *(leads or ["Nothing yet."])]) + "\n"


def _name(tree: Tree, start: Technology, name: str) -> str:
    """Return a technology's name, with a relative link to its page where there is one."""
    tech = tree.by_id.get(name)
    if tech is None or not tech.is_written:
        return f"{name} (planned)"
    return f"[{name}]({'..' if tech.era == start.era else f'../../{tech.era}'}/{name}/README.md)"


def with_links(tree: Tree, tech: Technology) -> str:
    """Return a technology's page with its current links."""
    text = tech.file("README.md").read_text(encoding="utf-8")
    return f"{text.partition(LINKS)[0].rstrip()}\n\n{links(tree, tech)}"


def main() -> None:
    """Renew the links of every page."""
    tree = load_tree()
    for tech in tree.written:
        path = tech.file("README.md")
        if not path.is_file():
            continue
        text = with_links(tree, tech)
        if text != path.read_text(encoding="utf-8"):
            atomic.write_text(path, text)
            print(f"{tech.era}/{tech.id}/README.md")


if __name__ == "__main__":
    main()
