"""docs/reproduce.md: its tables are what the commands print."""

import re

import pytest
import tiny_run
from reproduction import costs, demo_plan, paper_plan

from vie_jax.evaluation import paper_tables, report

PAGE = (tiny_run.REPOSITORY / 'docs' / 'reproduce.md').read_text('utf-8')
LINES = PAGE.splitlines()


def cells_of(line):
  return [cell.strip() for cell in line.strip('|').split('|')]


def tables():
  found = re.findall(r'(?:^\|.*\|$\n?)+', PAGE, flags=re.MULTILINE)
  return [[cells_of(line) for line in t.strip().split('\n')] for t in found]


@pytest.fixture(scope='module')
def plan():
  return paper_plan.make(out='R', paths={}, labels={}, extra={})


def cost_rows(plan, machine):
  rows = costs.table(
    plan, list(plan.steps.values()), costs.parse_machine(machine)
  )
  return {name: figures for name, *figures in rows}


def test_costs_are_those_that_the_command_prints(plan):
  (machine,) = re.findall(r'`--cost=(H100\S+)`', PAGE)
  (table,) = (t for t in tables() if t[0] == list(costs.HEAD))
  expected = cost_rows(plan, machine)
  found = {name: figures for name, *figures in table[2:]}
  assert found == {name: expected[name] for name in found}
  pretrained = {s.name for s in plan.steps.values() if s.mode == 'train'}
  assert pretrained < set(found)
  assert 'all' in found


def test_machines_are_compared_by_the_same_arithmetic(plan):
  (table,) = (t for t in tables() if t[0][0] == 'machine')
  assert len(table) > 4
  for machine, *figures in table[2:]:
    rows = cost_rows(plan, machine.strip('`'))
    assert figures == [*rows['vie_slowfast'][4:], *rows['all'][4:]], machine


@pytest.mark.parametrize('table', paper_tables.TABLES, ids=lambda t: t.name)
def test_the_papers_figures_are_those_of_the_tables(table):
  (found,) = (
    t
    for t in tables()
    if t[0][0] == 'cells' and t[2][0].startswith(f'`{table.name}.')
  )
  assert len(found) - 2 == len(table.rows)
  for row, (name, *figures) in zip(table.rows, found[2:], strict=True):
    known = [cell for cell in row.cells if cell]
    for cell in known:
      assert cell.name.startswith(f'{name.strip("`")}.')
    assert figures == [
      report.paper_text(cell) if cell else '' for cell in row.cells
    ]


def test_the_data_of_the_demo_are_as_the_plan_makes_them():
  plan = demo_plan.make(out='R', paths={}, labels={}, extra={})
  for data in plan.data.values():
    assert f'`{" ".join(data.prepared_by)}`' in PAGE


def test_every_figure_of_describe_is_there():
  for operations in costs.FORWARD.values():
    assert f'{operations / 1e9:.3g}' in PAGE


def test_every_config_of_the_paper_is_named(plan):
  for step in plan.steps.values():
    if step.mode == 'train' and 'single_data' not in step.config_file:
      assert f'--config={step.config_file} --workdir=OUT/{step.name} ' in PAGE
