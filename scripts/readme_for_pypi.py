"""Makes a tree's README and metadata fit for PyPI: `readme_for_pypi.py TREE REPOSITORY TAG`.

PyPI shows the README alone. Its links to other files become addresses in the repository, at the tag; the charts and the
metadata get theirs, too. Where REPOSITORY is empty, there is nowhere to link to: the words stay, pictures go.
"""

import pathlib
import re
import sys

tree, repository, tag = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
LINK = re.compile(r"(!?)\[([^]]*)\]\((?!https?://|#)([^)]+)\)")


def absolute(link):
    is_picture, text, path = link.groups()
    if not repository:
        return "" if is_picture else text
    return f"{is_picture}[{text}]({repository}/{'raw' if is_picture else 'blob'}/{tag}/{path})"


readme = tree / "README.md"
# Not in blocks of code.
parts = re.split(r"(^```.*?^```\n)", readme.read_text(), flags=re.MULTILINE | re.DOTALL)
parts[::2] = [LINK.sub(absolute, part) for part in parts[::2]]
readme.write_text("".join(parts))
if repository:
    pages = {"Repository": "", "Documentation": f"/tree/{tag}/docs", "Changelog": f"/blob/{tag}/CHANGELOG.md", "Issues": "/issues"}
    project = tree / "pyproject.toml"
    urls = "".join(f'{name} = "{repository}{page}"\n' for name, page in pages.items())
    project.write_text(project.read_text() + f"\n[project.urls]\n{urls}")
