"Gives setuptools the package's metadata from settings.ini, the one place where it stands"
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
settings = ConfigParser(delimiters=["="], interpolation=None)
settings.read(here/"settings.ini", encoding="utf-8")
package = settings["DEFAULT"]


def lines(key, section="DEFAULT"):
    "A setting of one item a line"
    return [line for line in settings[section][key].splitlines() if line]


def requirements(extra):
    "The requirements of an extra, and those of the extras that it names in brackets"
    found = [requirements(line[1:-1]) if line.startswith("[") else [line] for line in lines(extra, "extras")]
    return sum(found, [])


setup(
    version=package["version"],
    description=package["description"],
    long_description=(here/"README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=package["author"],
    license_expression=package["license"],
    keywords=package["keywords"],
    classifiers=lines("classifiers"),
    packages=find_packages(include=["boneage*"]),
    include_package_data=False,  # what is listed next, and nothing else
    package_data={"boneage": ["data/*", "weights/**/*"]},
    install_requires=lines("requirements"),
    extras_require={extra: requirements(extra) for extra in settings["extras"] if extra not in package},
    entry_points={"console_scripts": lines("console_scripts")},
)
