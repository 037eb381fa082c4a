"""A database with an object of every kind that PostgreSQL keeps inside one, and with names that do their worst."""

from __future__ import annotations

BY_ANY_ROLE = """
CREATE SCHEMA "Odd ""schema"".;--" AUTHORIZATION @user@;
COMMENT ON SCHEMA "Odd ""schema"".;--" IS 'two
lines; -- and a ''quote''';
CREATE SCHEMA books AUTHORIZATION @user@;
GRANT USAGE ON SCHEMA books TO @reader@;
GRANT ALL ON SCHEMA public TO @user@;
DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO @user@', current_database()); END $$;
SET ROLE @user@;
ALTER DEFAULT PRIVILEGES IN SCHEMA books GRANT SELECT ON TABLES TO @reader@;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT USAGE ON SEQUENCES TO @reader@;

CREATE TYPE books.mood AS ENUM ('sad', 'it''s; ok', 'happy');
ALTER TYPE books.mood ADD VALUE 'so-so' BEFORE 'happy';
CREATE TYPE books.pair AS (a integer, b text);
CREATE TYPE books.floats AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE DOMAIN books.positive AS integer DEFAULT 1 NOT NULL CHECK (VALUE > 0);
COMMENT ON TYPE books.mood IS 'how one feels';
CREATE COLLATION books.german FROM "C";
CREATE SEQUENCE books.counter START 100 INCREMENT 7 CACHE 5 CYCLE MAXVALUE 100000;
SELECT nextval('books.counter'), nextval('books.counter');
CREATE SEQUENCE books.never_used;

CREATE FUNCTION books.add_up(a integer, b integer DEFAULT 2) RETURNS integer LANGUAGE sql IMMUTABLE
AS $body$ SELECT $1 + $2; -- COPY books.t (a) FROM stdin;
$body$;
CREATE FUNCTION books.touch() RETURNS trigger LANGUAGE plpgsql AS $f$
BEGIN
    NEW.touched := coalesce(NEW.touched, 0) + 1;
    -- Name: books; Type: SCHEMA; Schema: -; Owner: nobody
    RETURN NEW;
END
$f$;
CREATE FUNCTION books.several(VARIADIC numbers integer[], OUT lowest integer, OUT highest integer) RETURNS record
    LANGUAGE sql STABLE PARALLEL SAFE COST 5 SET work_mem = '1MB'
AS 'SELECT min(x), max(x) FROM unnest(numbers) x';
CREATE PROCEDURE books.do_it(INOUT n integer) LANGUAGE plpgsql AS 'BEGIN n := n + 1; END';
CREATE FUNCTION books.join_two(text, text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1 || $2';
CREATE AGGREGATE books.glue(text) (SFUNC = books.join_two, STYPE = text, INITCOND = '');
CREATE AGGREGATE books.how_many(*) (SFUNC = int8inc, STYPE = bigint, INITCOND = '0');
CREATE OPERATOR books.|+| (LEFTARG = integer, RIGHTARG = integer, FUNCTION = books.add_up, COMMUTATOR = OPERATOR(books.|+|));
CREATE FUNCTION books.mood_number(books.mood) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 7';
CREATE CAST (books.mood AS integer) WITH FUNCTION books.mood_number(books.mood) AS ASSIGNMENT;
CREATE TEXT SEARCH DICTIONARY books.plain (TEMPLATE = pg_catalog.simple, STOPWORDS = english);
CREATE TEXT SEARCH CONFIGURATION books.searching (COPY = pg_catalog.english);
ALTER TEXT SEARCH CONFIGURATION books.searching ALTER MAPPING FOR asciiword WITH books.plain;

CREATE TABLE books.author (
    id integer GENERATED ALWAYS AS IDENTITY (START 10) PRIMARY KEY,
    name text NOT NULL COLLATE books.german,
    feels books.mood DEFAULT 'happy',
    two books.pair,
    span books.floats,
    stock books.positive,
    twice integer GENERATED ALWAYS AS (id * 2) STORED,
    touched integer,
    tags text[] DEFAULT '{}',
    document jsonb,
    CONSTRAINT short_name CHECK (length(name) < 100)
);
COMMENT ON TABLE books.author IS E'back\\\\slash and \\ttab';
COMMENT ON COLUMN books.author.name IS 'as on the cover';
ALTER TABLE books.author ALTER COLUMN name SET STATISTICS 321;
ALTER TABLE books.author ALTER COLUMN document SET STORAGE EXTERNAL;
ALTER TABLE books.author SET (fillfactor = 70);
INSERT INTO books.author (name, two, span, touched, tags, document)
SELECT CASE n WHEN 1 THEN E'tab\\there' WHEN 2 THEN E'new\\nline' WHEN 3 THEN E'\\\\.' WHEN 4 THEN '' WHEN 5 THEN 'ünï☃'
              ELSE 'author ' || n END,
       (n, CASE WHEN n % 2 = 0 THEN 'x' END)::books.pair, books.floats(n, n + 0.5), NULLIF(n % 3, 0),
       ARRAY['a', NULL, '"'], pg_catalog.jsonb_build_object('n', n, 'long', repeat('y', n))
  FROM generate_series(1, 300) AS n;
CREATE TABLE books.book (
    isbn text NOT NULL,
    author integer NOT NULL,
    sequel text,
    published daterange,
    price numeric(10, 2) DEFAULT books.add_up(3),
    number integer DEFAULT nextval('books.counter'),
    serial_number serial,
    cover bytea
);
ALTER TABLE books.book ADD CONSTRAINT book_pkey PRIMARY KEY (isbn);
INSERT INTO books.book (isbn, author, sequel, cover, published)
SELECT 'isbn-' || n, 10 + n % 300, 'isbn-' || (n % 500 + 1), decode(md5(n::text), 'hex'),
       daterange('2001-01-01'::date + n, '2001-02-01'::date + n)
  FROM generate_series(1, 500) AS n;
ALTER TABLE books.book ADD FOREIGN KEY (author) REFERENCES books.author ON DELETE CASCADE;
ALTER TABLE books.book ADD CONSTRAINT sequel FOREIGN KEY (sequel) REFERENCES books.book DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE books.author ADD COLUMN best text;
UPDATE books.author SET best = 'isbn-' || (id - 9);
ALTER TABLE books.author ADD CONSTRAINT round_trip FOREIGN KEY (best) REFERENCES books.book NOT VALID;
ALTER TABLE books.book ADD CONSTRAINT not_twice EXCLUDE USING gist (published WITH =) WHERE (isbn = 'never');
CREATE INDEX by_price ON books.book USING btree (price DESC NULLS LAST) INCLUDE (author) WHERE price > 0;
CREATE INDEX by_words ON books.author USING gin (pg_catalog.to_tsvector('books.searching', name));
CREATE UNIQUE INDEX by_odd_text ON books.book ((isbn || ';''\\' || E'\\n$$'));
COMMENT ON INDEX books.by_odd_text IS 'a; comment';
ALTER TABLE books.book CLUSTER ON book_pkey;
ALTER TABLE books.book REPLICA IDENTITY USING INDEX book_pkey;
CREATE STATISTICS books.related (ndistinct, dependencies, mcv) ON author, price FROM books.book;
CREATE TRIGGER touched BEFORE UPDATE OF name ON books.author FOR EACH ROW WHEN (NEW.name IS NOT NULL)
    EXECUTE FUNCTION books.touch();
CREATE TRIGGER switched_off BEFORE INSERT ON books.author FOR EACH ROW EXECUTE FUNCTION books.touch();
ALTER TABLE books.author DISABLE TRIGGER switched_off;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON books.author DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    EXECUTE FUNCTION books.touch();
CREATE TABLE books.log (what text);
CREATE RULE no_delete AS ON DELETE TO books.log
    DO INSTEAD (INSERT INTO books.log VALUES ('kept; really'); UPDATE books.log SET what = 'x''y' WHERE false;);
INSERT INTO books.log VALUES ('one');

CREATE TABLE books.secret (owner name, content text);
INSERT INTO books.secret VALUES ('somebody', 'hidden'), ('else', 'too');
ALTER TABLE books.secret ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON books.secret AS PERMISSIVE FOR SELECT TO @reader@ USING (owner = current_user);
CREATE POLICY nobody ON books.secret AS RESTRICTIVE FOR DELETE USING (false);
GRANT SELECT (content), UPDATE (content) ON books.secret TO @reader@;
GRANT SELECT ON books.author TO @reader@ WITH GRANT OPTION;
GRANT EXECUTE ON FUNCTION books.add_up TO PUBLIC;

CREATE TABLE books.sale (id bigint, at timestamptz NOT NULL, amount money, place text) PARTITION BY RANGE (at);
CREATE TABLE books.sale_old PARTITION OF books.sale FOR VALUES FROM (MINVALUE) TO ('2020-01-01 00:00+00');
CREATE TABLE books.sale_new PARTITION OF books.sale FOR VALUES FROM ('2020-01-01 00:00+00') TO (MAXVALUE)
    PARTITION BY LIST (place);
CREATE TABLE books.sale_new_here PARTITION OF books.sale_new FOR VALUES IN ('here', NULL);
CREATE TABLE books.sale_rest PARTITION OF books.sale_new DEFAULT;
CREATE INDEX sale_by_id ON books.sale (id);
INSERT INTO books.sale SELECT n, '2019-12-31 12:00+00'::timestamptz + n * interval '1 hour', n, (ARRAY['here', 'there'])[n % 3]
  FROM generate_series(1, 100) AS n;
CREATE TABLE books.base (a integer PRIMARY KEY, b text DEFAULT 'base');
CREATE TABLE books.derived (c integer DEFAULT 5, CHECK (c > 0) NO INHERIT) INHERITS (books.base);
INSERT INTO books.base VALUES (1);
INSERT INTO books.derived VALUES (2);
CREATE UNLOGGED TABLE books.cache (k text, v text);
INSERT INTO books.cache VALUES ('k', 'v');
CREATE TABLE books.of_a_type OF books.pair (a PRIMARY KEY);
CREATE TABLE books.without_columns ();
INSERT INTO books.without_columns DEFAULT VALUES;
CREATE TABLE books.dropped_column (a integer, b integer, c integer);
INSERT INTO books.dropped_column VALUES (1, 2, 3);
ALTER TABLE books.dropped_column DROP COLUMN b;
ALTER TABLE books.dropped_column ADD COLUMN d integer DEFAULT 4;

CREATE VIEW books.named WITH (security_barrier) AS SELECT id, name FROM books.author WHERE name <> E'a\\\\b;''' WITH CHECK OPTION;
CREATE VIEW books.grouped AS SELECT isbn, price, count(*) AS n FROM books.book GROUP BY isbn;
CREATE RECURSIVE VIEW books.counting (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM counting WHERE n < 3;
COMMENT ON VIEW books.named IS 'names';
CREATE RULE into_named AS ON UPDATE TO books.counting DO INSTEAD NOTHING;
CREATE MATERIALIZED VIEW books.per_author AS SELECT author, count(*) AS books FROM books.book GROUP BY author;
CREATE UNIQUE INDEX ON books.per_author (author);
CREATE MATERIALIZED VIEW books.on_the_other AS SELECT sum(books) AS all_of_them FROM books.per_author;
CREATE MATERIALIZED VIEW books.grouped_kept AS SELECT isbn, price FROM books.book GROUP BY isbn;
CREATE INDEX ON books.grouped_kept (price);
CREATE MATERIALIZED VIEW books.not_filled AS SELECT 1 AS one WITH NO DATA;

CREATE TABLE "Odd ""schema"".;--"."Ta ""ble';
COPY x FROM stdin;
" ("co;l'
umn" text, "select" integer GENERATED BY DEFAULT AS IDENTITY);
INSERT INTO "Odd ""schema"".;--"."Ta ""ble';
COPY x FROM stdin;
" VALUES ('a;b', 1), (E'\\\\.\\n', 2);
CREATE INDEX "in;d'ex
$$" ON "Odd ""schema"".;--"."Ta ""ble';
COPY x FROM stdin;
" ("co;l'
umn");
CREATE FUNCTION "Odd ""schema"".;--"."f;'n"("Ar g" "Odd ""schema"".;--"."Ta ""ble';
COPY x FROM stdin;
") RETURNS void LANGUAGE sql AS '';
CREATE TABLE public.in_public (id serial PRIMARY KEY, big text);
INSERT INTO public.in_public (big) SELECT repeat(md5(n::text), 2000) FROM generate_series(1, 40) AS n;
SELECT lo_from_bytea(70001, 'large; ''object''');
SELECT lo_from_bytea(70002, decode(repeat('00ff5c27', 10000), 'hex'));
COMMENT ON LARGE OBJECT 70001 IS 'a large one';
GRANT SELECT ON LARGE OBJECT 70002 TO @reader@;
CREATE PUBLICATION news FOR TABLE books.book, books.sale_old WITH (publish = 'insert, update');
RESET ROLE;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO @reader@;
COMMENT ON SCHEMA public IS 'ours';
"""
"""What an ordinary role may own; @user@ owns it, @reader@ is granted some of it. Run by a superuser."""

BY_A_SUPERUSER = """
CREATE EXTENSION hstore SCHEMA books;
CREATE EXTENSION btree_gist SCHEMA public;
GRANT SELECT ON pg_stat_statements TO @reader@;
CREATE TABLE books.with_hstore (h books.hstore, n integer);
INSERT INTO books.with_hstore VALUES ('a=>1, b=>"x;y"', 1);
CREATE INDEX ON books.with_hstore USING gist (h);
ALTER FUNCTION books.mood_number(books.mood) OWNER TO CURRENT_USER;
CREATE TABLE public.of_the_superuser (a integer);
INSERT INTO public.of_the_superuser VALUES (1);
CREATE FOREIGN DATA WRAPPER own_wrapper OPTIONS (debug 'true');
CREATE SERVER elsewhere FOREIGN DATA WRAPPER own_wrapper OPTIONS (host 'nowhere', dbname 'x''y');
CREATE USER MAPPING FOR @user@ SERVER elsewhere OPTIONS (user 'u', password 'p;''q');
CREATE USER MAPPING FOR PUBLIC SERVER elsewhere OPTIONS (user 'anybody');
CREATE FOREIGN TABLE books.far_away (a integer OPTIONS (column_name 'b'), b text) SERVER elsewhere OPTIONS (table_name 't');
ALTER SERVER elsewhere OWNER TO @user@;
CREATE TABLE public.ddl_log (what text);
GRANT INSERT ON public.ddl_log TO PUBLIC;
CREATE FUNCTION public.on_ddl() RETURNS event_trigger LANGUAGE plpgsql
    AS 'BEGIN INSERT INTO public.ddl_log VALUES (tg_tag); END';
CREATE EVENT TRIGGER watch_ddl ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION public.on_ddl();
CREATE EVENT TRIGGER watch_drops ON sql_drop EXECUTE FUNCTION public.on_ddl();
CREATE EVENT TRIGGER switched_off ON ddl_command_start EXECUTE FUNCTION public.on_ddl();
ALTER EVENT TRIGGER switched_off DISABLE;
CREATE PUBLICATION everything FOR ALL TABLES;
CREATE FUNCTION public.c_function(integer) RETURNS integer LANGUAGE internal STRICT IMMUTABLE AS 'int4abs';
CREATE FUNCTION books.compare(integer, integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT $2 - $1';
CREATE AGGREGATE books.middle(float8 ORDER BY anyelement)
    (SFUNC = ordered_set_transition, STYPE = internal, FINALFUNC = percentile_disc_final, FINALFUNC_EXTRA);
CREATE OPERATOR FAMILY books.backwards_family USING btree;
CREATE OPERATOR CLASS books.backwards FOR TYPE integer USING btree FAMILY books.backwards_family AS
    OPERATOR 1 >, OPERATOR 2 >=, OPERATOR 3 =, OPERATOR 4 <=, OPERATOR 5 <, FUNCTION 1 books.compare(integer, integer);
CREATE INDEX backwards ON public.of_the_superuser (a books.backwards);
CREATE TYPE books.shell;
CREATE FUNCTION books.own_in(cstring) RETURNS books.shell LANGUAGE internal STRICT IMMUTABLE AS 'int4in';
CREATE FUNCTION books.own_out(books.shell) RETURNS cstring LANGUAGE internal STRICT IMMUTABLE AS 'int4out';
CREATE TYPE books.shell (INPUT = books.own_in, OUTPUT = books.own_out, LIKE = integer);
CREATE TYPE books.only_a_shell;
CREATE TABLE books.of_own_type (a books.shell);
INSERT INTO books.of_own_type VALUES ('42');
CREATE CAST (books.shell AS integer) WITHOUT FUNCTION;
CREATE CONVERSION books.own_conversion FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE TEXT SEARCH TEMPLATE books.own_template (LEXIZE = dsimple_lexize, INIT = dsimple_init);
CREATE TEXT SEARCH PARSER books.own_parser
    (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype, HEADLINE = prsd_headline);
CREATE ACCESS METHOD own_heap TYPE TABLE HANDLER heap_tableam_handler;
CREATE TABLE books.of_own_method (a integer) USING own_heap;
INSERT INTO books.of_own_method VALUES (1);
GRANT USAGE ON LANGUAGE plpgsql TO @reader@;
REVOKE EXECUTE ON FUNCTION pg_catalog.pg_sleep(float8) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_sleep(float8) TO @user@;
GRANT USAGE ON FOREIGN DATA WRAPPER own_wrapper TO @user@;
SET SESSION AUTHORIZATION @reader@;
GRANT SELECT ON books.author TO PUBLIC;
RESET SESSION AUTHORIZATION;
"""

SINCE = (
    (
        14,
        """
CREATE FUNCTION books.atomic(n integer) RETURNS integer LANGUAGE sql
BEGIN ATOMIC
    SELECT CASE WHEN n > 0 THEN 1 ELSE 2 END;
    SELECT n + 1;
END;
ALTER FUNCTION books.atomic OWNER TO @user@;
CREATE TABLE books.many_ranges (r int4multirange, f books.multifloats);
ALTER TABLE books.many_ranges OWNER TO @user@;
INSERT INTO books.many_ranges VALUES ('{[1,3), [7,9)}', NULL);
ALTER TABLE books.book ALTER COLUMN cover SET COMPRESSION pglz;
CREATE STATISTICS books.of_expressions ON (price * 2), (author % 7) FROM books.book;
""".replace("books.multifloats", "int8multirange"),
    ),
    (
        15,
        """
CREATE UNIQUE INDEX nulls_alike ON books.author (best) NULLS NOT DISTINCT WHERE best IS NULL AND id < 0;
CREATE VIEW books.by_the_invoker WITH (security_invoker) AS SELECT 1 AS one;
CREATE PUBLICATION of_a_schema FOR TABLES IN SCHEMA books;
CREATE PUBLICATION of_some FOR TABLE books.base (a) WHERE (a > 1);
""",
    ),
    (
        18,
        """
CREATE TABLE books.computed (a integer, b integer GENERATED ALWAYS AS (a * 2) VIRTUAL, n integer);
INSERT INTO books.computed (a) VALUES (4);
ALTER TABLE books.computed ADD CONSTRAINT n_later NOT NULL n NOT VALID;
CREATE TABLE books.periods (id integer, during daterange, PRIMARY KEY (id, during WITHOUT OVERLAPS));
""",
    ),
)
"""By the first version that has it."""


def every_kind(version: int, user: str, reader: str, *, superuser: bool) -> bytes:
    """Write the statements; `user` and `reader` are quoted."""
    script = BY_ANY_ROLE
    if superuser:
        script += BY_A_SUPERUSER + "".join(more for since, more in SINCE if version >= since)
    return script.replace("@user@", user).replace("@reader@", reader).encode()
