"""Sessions and ledgers that an older version made, and the tests that this version still reads them."""
