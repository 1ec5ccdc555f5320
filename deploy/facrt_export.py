"""`optimum-cli export facrt`: what `facrt export` does, where users of Optimum look for it.

Installed as optimum/commands/register/facrt_export.py: optimum-cli reads REGISTER_COMMANDS of every module there.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from optimum.commands.base import BaseOptimumCLICommand, CommandInfo
from optimum.commands.export.base import ExportCommand


class FacrtExportCommand(BaseOptimumCLICommand):
    COMMAND = CommandInfo(name="facrt", help="Export Fun-Audio-Chat to a bundle for facrt, on CPU, RTX or Jetson.")

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Leaves every argument to `facrt export`, --help too: its options are written once."""

        def take_all(arguments: Sequence[str], _namespace: object = None) -> tuple[Namespace, list[str]]:
            return Namespace(arguments=list(arguments), func=parser.get_default("func")), []

        parser.parse_known_args = take_all  # type: ignore[method-assign, assignment]

    def run(self) -> None:
        from facrt.cli import main_of

        main_of("export", self.args.arguments, "optimum-cli export facrt")


REGISTER_COMMANDS = [(FacrtExportCommand, ExportCommand)]
