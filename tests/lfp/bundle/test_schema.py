import pyarrow as pa
import pytest

from lfp.bundle.schema import BY_NAME, TABLES, markdown


def test_tables_are_named_once():
    assert len(BY_NAME) == len(TABLES)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_table_is_sorted_by_its_own_columns(table):
    assert set(table.sorted_by) <= {column.name for column in table.columns}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_columns_are_named_once_and_say_what_they_mean(table):
    names = [column.name for column in table.columns]
    assert len(names) == len(set(names))
    assert all(column.meaning.endswith(".") for column in table.columns)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_the_arrow_schema_keeps_order_and_nullability(table):
    assert table.schema.names == [column.name for column in table.columns]
    assert [field.nullable for field in table.schema] == [column.nullable for column in table.columns]


def test_the_page_names_every_column():
    page = markdown()
    for table in TABLES:
        section = page.split(f"## {table.name}\n")[1].split("\n## ")[0]
        assert all(f"| `{column.name}` |" in section for column in table.columns)


def test_ids_are_of_one_type_everywhere():
    for name, type_ in {"feature_id": pa.int32(), "text_id": pa.int64(), "probe_id": pa.int32()}.items():
        found = {column.type for table in TABLES for column in table.columns if column.name == name}
        assert found == {type_}
