#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "config/config.h"

struct server {
	char *host;
	int64_t port;
	bool backup;
};

struct sample {
	char *name;
	char *file;
	char *log_file;
	bool enabled;
	int64_t workers, offset;
	int64_t interval_ms;
	int64_t size;
	int mode;
	struct config_strings groups, words;
	struct config_list servers;
};

static const struct config_key server_keys[] = {
	{ "host", CONFIG_STRING, offsetof(struct server, host), NULL, .required = true, .min = 1, .max = 20, .help = "the host's name" },
	{ "port", CONFIG_INT, offsetof(struct server, port), "636", .min = 1, .max = 65535 },
	{ "tuning.backup", CONFIG_BOOL, offsetof(struct server, backup), "false", .reloadable = true },
	{ 0 },
};

static const struct config_key keys[] = {
	{ "name", CONFIG_STRING, offsetof(struct sample, name), NULL, .required = true, .min = 2, .max = 8 },
	{ "file", CONFIG_PATH, offsetof(struct sample, file), NULL },
	{ "log.file", CONFIG_PATH, offsetof(struct sample, log_file), "/var/log/x" },
	{ "log.level.enabled", CONFIG_BOOL, offsetof(struct sample, enabled), "true", .reloadable = true },
	{ "channel.workers", CONFIG_INT, offsetof(struct sample, workers), "4", .min = 1, .max = 64 },
	{ "channel.offset", CONFIG_INT, offsetof(struct sample, offset), "0", .min = INT64_MIN },
	{ "channel.interval", CONFIG_DURATION_MS, offsetof(struct sample, interval_ms), "25s", .reloadable = true, .min = 1000, .max = 3600000 },
	{ "channel.size", CONFIG_SIZE, offsetof(struct sample, size), "64KiB", .min = 0 },
	{ "mode", CONFIG_CHOICE, offsetof(struct sample, mode), "enforce", .choices = "observe|enforce|off" },
	{ "groups", CONFIG_STRINGS, offsetof(struct sample, groups), NULL, .min = 1, .max = 3 },
	{ "words", CONFIG_STRINGS, offsetof(struct sample, words), "[a, b]", .reloadable = true },
	{ "servers", CONFIG_LIST, offsetof(struct sample, servers), NULL, .min = 1, .max = 2, .table = server_keys, .element_size = sizeof(struct server) },
	{ 0 },
};

struct parsed {
	struct sample config;
	struct config_errors errors;
	struct config_document *document;
	enum status status;
	char *text;      /* the errors as printed */
};

static void parse_sized(struct parsed *p, const char *text, size_t size)
{
	size_t out_size;
	*p = (struct parsed){ 0 };
	p->status = config_parse("/etc/x/x.yaml", text, size, keys, &p->config, &p->errors, &p->document);
	FILE *out = open_memstream(&p->text, &out_size);
	config_errors_print(&p->errors, out);
	fclose(out);
}

static void parse(struct parsed *p, const char *text)
{
	parse_sized(p, text, strlen(text));
}

static void done(struct parsed *p)
{
	config_clear(keys, &p->config);
	static const struct sample nothing;
	assert_memory_equal(&p->config, &nothing, sizeof nothing);
	config_errors_clear(&p->errors);
	config_document_free(p->document);
	free(p->text);
}

static void everything_is_read(void **state)
{
	struct parsed p;
	parse(&p, "# a comment\n"
	          "name: \"tokyo\"\n"
	          "file: sub/key.pem\n"
	          "log:\n"
	          "  file: /var/log/y\n"
	          "  level: {enabled: false}\n"
	          "channel:\n"
	          "  workers: 010\n"
	          "  offset: -5\n"
	          "  interval: 2min\n"
	          "  size: 16MiB\n"
	          "mode: off\n"
	          "groups: [one, 'two']\n"
	          "words: []\n"
	          "servers:\n"
	          "  - host: dc1\n"
	          "  - host: dc2\n"
	          "    port: 389\n"
	          "    tuning:\n"
	          "      backup: true\n");
	assert_string_equal(p.text, "");
	assert_int_equal(p.status, STATUS_OK);
	assert_string_equal(p.config.name, "tokyo");
	assert_string_equal(p.config.file, "/etc/x/sub/key.pem");
	assert_string_equal(p.config.log_file, "/var/log/y");
	assert_false(p.config.enabled);
	assert_int_equal(p.config.workers, 10);
	assert_int_equal(p.config.offset, -5);
	assert_int_equal(p.config.interval_ms, 120000);
	assert_int_equal(p.config.size, 16 << 20);
	assert_int_equal(p.config.mode, 2);
	assert_int_equal(p.config.groups.count, 2);
	assert_string_equal(p.config.groups.items[1], "two");
	assert_int_equal(p.config.words.count, 0);
	assert_int_equal(p.config.servers.count, 2);
	const struct server *servers = p.config.servers.items;
	assert_string_equal(servers[0].host, "dc1");
	assert_int_equal(servers[0].port, 636);
	assert_false(servers[0].backup);
	assert_int_equal(servers[1].port, 389);
	assert_true(servers[1].backup);
	config_error_add(&p.errors, p.document, "servers[1].port", "no");
	assert_int_equal(p.errors.items[0].line, 18);
	config_error_add(&p.errors, p.document, "servers[0].port", "no");
	assert_int_equal(p.errors.items[1].line, 16); /* a default has no line: that of its element */
	config_error_add(&p.errors, p.document, "nothing.like.it", "no");
	assert_int_equal(p.errors.items[2].line, 0);
	done(&p);
}

static void defaults_apply(void **state)
{
	struct parsed p;
	parse(&p, "name: ab\nlog:\nchannel: {}\n");
	assert_string_equal(p.text, "");
	assert_null(p.config.file);
	assert_string_equal(p.config.log_file, "/var/log/x");
	assert_true(p.config.enabled);
	assert_int_equal(p.config.workers, 4);
	assert_int_equal(p.config.interval_ms, 25000);
	assert_int_equal(p.config.size, 65536);
	assert_int_equal(p.config.mode, 1);
	assert_int_equal(p.config.groups.count, 0);
	assert_int_equal(p.config.words.count, 2);
	assert_string_equal(p.config.words.items[0], "a");
	assert_string_equal(p.config.words.items[1], "b");
	assert_int_equal(p.config.servers.count, 0);
	done(&p);
}

/* Each row: a text (behind "name: ab\n") and what its only finding says, with its line. */
static void each_fault_is_named(void **state)
{
	static const struct { const char *text, *finding; } rows[] = {
		{ "nam: x", "2: unknown key \"nam\"; the nearest known one is \"name\"" },
		{ "channel:\n  worker: 3", "3: unknown key \"channel.worker\"; the nearest known one is \"channel.workers\"" },
		{ "interval: 10s", "2: unknown key \"interval\"; there is \"channel.interval\"" },
		{ "channel.workers: 5", "2: unknown key \"channel.workers\"; a dot does not separate here, write \"channel:\" and" },
		{ "channel:\n\tworkers: 3", "3: not YAML: a tab; indent with blanks" },
		{ "zzzzzzzz: 1", "2: unknown key \"zzzzzzzz\"; known here are name, file, log, channel, mode, groups, words, servers" },
		{ "<<: {}", "2: unknown key \"<<\"; known here are" },
		{ "\"\": 1", "2: unknown key \"\"; known here are" },
		{ "\"na\\0me\": 1", "2: unknown key \"na?me\"" },
		{ "name: cd", "2: \"name\" is given twice; it stands in line 1 already" },
		{ "? [a]\n: 1", "2: a key should be a word" },
		{ "channel: 5", "2: channel: should be a mapping (key: value)" },
		{ "channel: [1]", "2: channel: should be a mapping (key: value)" },
		{ "mode: Enforce", "2: mode: \"Enforce\" should be one of observe|enforce|off" },
		{ "mode: enforc", "2: mode: \"enforc\" should be one of" },
		{ "mode:", "2: mode: has no value" },
		{ "mode: ''", "2: mode: \"\" should be one of" },
		{ "mode: [off]", "2: mode: should be one value, not a list" },
		{ "mode: {a: b}", "2: mode: should be one value, not a mapping" },
		{ "log: {level: {enabled: yes}}", "2: log.level.enabled: \"yes\" should be true or false" },
		{ "log: {level: {enabled: True}}", "2: log.level.enabled: \"True\" should be true or false" },
		{ "channel: {workers: 0}", "2: channel.workers: 0 is out of range; it should be between 1 and 64" },
		{ "channel: {workers: 65}", "2: channel.workers: 65 is out of range" },
		{ "channel: {workers: 1.5}", "2: channel.workers: \"1.5\" should be a whole number" },
		{ "channel: {workers: 0x10}", "2: channel.workers: \"0x10\" should be a whole number" },
		{ "channel: {workers: +5}", "2: channel.workers: \"+5\" should be a whole number" },
		{ "channel: {workers: 1_0}", "2: channel.workers: \"1_0\" should be" },
		{ "channel: {workers: '5 '}", "2: channel.workers: \"5 \" should be" },
		{ "channel: {workers: \"5\\0\"}", "2: channel.workers: \"5?\" should be" },
		{ "channel: {offset: 9223372036854775808}", "2: channel.offset: \"9223372036854775...\" should be a whole number" },
		{ "channel: {interval: 10}", "2: channel.interval: \"10\" should be a whole number with a unit" },
		{ "channel: {interval: 1.5s}", "2: channel.interval: \"1.5s\" should be" },
		{ "channel: {interval: 10m}", "2: channel.interval: \"10m\" should be" },
		{ "channel: {interval: 10 s}", "2: channel.interval: \"10 s\" should be" },
		{ "channel: {interval: 999ms}", "2: channel.interval: 999ms is out of range; it should be between 1s and 1h" },
		{ "channel: {interval: 2h}", "2: channel.interval: 2h is out of range" },
		{ "channel: {interval: 106751991168d}", "2: channel.interval: \"106751991168d\" should be" },
		{ "channel: {size: 64KB}", "2: channel.size: \"64KB\" should be" },
		{ "channel: {size: -1}", "2: channel.size: -1 is out of range; it should be 0 or more" },
		{ "file: ''", "2: file: the value should be the path of a file" },
		{ "file: \"a\\nb\"", "2: file: the value should not contain control characters" },
		{ "groups: one", "2: groups: should be a list" },
		{ "groups: []", "2: groups: has 0 items; it should have at least 1" },
		{ "groups: [a, b, c, d]", "2: groups: has 4 items; it should have at most 3" },
		{ "groups:\n- a\n- \n", "4: groups[1]: should be a text of one line" },
		{ "groups: [[a]]", "2: groups[0]: should be a text of one line" },
		{ "servers: {host: a}", "2: servers: should be a list" },
		{ "servers: [a]", "2: servers[0]: should be a mapping" },
		{ "servers:\n- port: 1", "3: servers[0].host is missing: the host's name" },
		{ "servers:\n- host: a\n- host: b\n  prot: 1", "5: unknown key \"servers[1].prot\"; the nearest known one is \"servers[1].port\"" },
		{ "servers:\n- host: ''", "3: servers[0].host: the value is too short; it should have at least 1 characters" },
		{ "servers:\n- host: aaaaaaaaaaaaaaaaaaaaa", "3: servers[0].host: the value is too long; it should have at most 20 bytes" },
		{ "mode: !!str off", "2: tags (!) are not allowed" },
		{ "mode: &a off", "2: anchors (&) are not allowed" },
		{ "mode: *a", "2: aliases (*) are not allowed" },
		{ "channel: !x {}", "2: tags (!) are not allowed" },
		{ "groups: &x [a]", "2: anchors (&) are not allowed" },
		{ "--- {}", "2: " },
		{ "---\nname: cd", "2: a second document begins here" },
		{ "mode: [", "3: not YAML: " },
		{ "\tmode: off", "2: not YAML: " },
		{ "mode: \"\xFF\"", " not YAML at byte" },
		{ "file: [[[[[[[a]]]]]]]", "2: file: should be one value, not a list" },
		{ "file: [[[[[[[[a]]]]]]]]", "2: nested more than 8 levels deep" },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct parsed p;
		AUTO_FREE char *text = NULL, *start = NULL;
		assert_true(asprintf(&text, "name: ab\n%s\n", rows[i].text) > 0);
		assert_true(asprintf(&start, "/etc/x/x.yaml:%s", rows[i].finding) > 0);
		parse(&p, text);
		if (p.status != STATUS_LOCAL_CONFIG || p.errors.count != 1 || strncmp(p.text, start, strlen(start)) != 0)
			fail_msg("%s\ngave %s\nshould be %s", text, p.text, start);
		done(&p);
	}
}

static void other_encodings_are_named(void **state)
{
	struct parsed p;
	parse(&p, "\xEF\xBB\xBFname: ab\n");
	assert_string_equal(p.text, "/etc/x/x.yaml:1: begins with a byte order mark (BOM); save it as UTF-8 without one\n");
	done(&p);
	parse_sized(&p, "\xFF\xFEn\0", 4);
	assert_string_equal(p.text, "/etc/x/x.yaml:1: is UTF-16; save it as UTF-8\n");
	done(&p);
}

static void all_faults_are_reported(void **state)
{
	struct parsed p;
	parse(&p, "nme: x\nmode: never\nchannel:\n  workers: 1000\n");
	assert_int_equal(p.status, STATUS_LOCAL_CONFIG);
	assert_int_equal(p.errors.count, 4);
	assert_non_null(strstr(p.text, "/etc/x/x.yaml: name is missing\n"));
	done(&p);
	parse(&p, "");
	assert_string_equal(p.text, "/etc/x/x.yaml: name is missing\n");
	done(&p);
	parse(&p, "- a\n");
	assert_string_equal(p.text, "/etc/x/x.yaml:1: the file should be a mapping (key: value)\n");
	done(&p);
}

static void size_and_nesting_are_bounded(void **state)
{
	struct parsed p;
	const size_t limit = 65536;
	AUTO_FREE char *text = malloc(limit + 1);
	memset(text, '#', limit + 1);
	parse_sized(&p, text, limit + 1);
	assert_string_equal(p.text, "/etc/x/x.yaml: larger than 64 KiB\n");
	done(&p);
	memcpy(text, "name: ab\n", 9);
	parse_sized(&p, text, limit);
	assert_int_equal(p.status, STATUS_OK);
	done(&p);
	/* libyaml takes seconds for these when one lets it. */
	static const char *const fillers[] = { "[", "{", "- ", "? ", "[\n", "a: [", "{a: ", "!a ", "&a ", "\"", "a:\n" };
	for (size_t i = 0; i < sizeof fillers / sizeof fillers[0]; i++) {
		size_t size = strlen(fillers[i]);
		for (size_t at = 0; at + size <= limit; at += size)
			memcpy(text + at, fillers[i], size);
		int64_t before = clock_monotonic_us();
		parse_sized(&p, text, limit / size * size);
		assert_int_equal(p.status, STATUS_LOCAL_CONFIG);
		int64_t took = clock_monotonic_us() - before;
		assert_in_range(p.errors.count, 1, 101);
		if (took > 2000000)
			fail_msg("64 KiB of %s took %lld us", fillers[i], (long long)took);
		done(&p);
	}
}

static void every_cut_is_judged(void **state)
{
	const char *text = "name: ab\nservers: [{host: 'a', port: 3}]\ngroups:\n  - \"x\\n\"\nlog: {file: a}\n";
	for (size_t size = 0; size <= strlen(text); size++) {
		struct parsed p;
		parse_sized(&p, text, size);
		assert_int_equal(p.status == STATUS_OK, p.errors.count == 0);
		done(&p);
	}
}

static void dump_says_where_from(void **state)
{
	struct parsed p;
	AUTO_FREE char *text = NULL;
	size_t size;
	parse(&p, "name: 'a b'\nchannel:\n  interval: 90s\nservers:\n  - host: dc1\ngroups: [\"x, y\", z]\n");
	assert_string_equal(p.text, "");
	FILE *out = open_memstream(&text, &size);
	config_dump(keys, &p.config, p.document, out);
	fclose(out);
	assert_non_null(strstr(text, "name: \"a b\" "));
	assert_non_null(strstr(text, "# /etc/x/x.yaml:1\n"));
	assert_non_null(strstr(text, "channel.interval: 90s "));
	assert_non_null(strstr(text, "# /etc/x/x.yaml:3\n"));
	assert_non_null(strstr(text, "channel.size: 64KiB "));
	assert_non_null(strstr(text, "servers[0].host: dc1 "));
	assert_non_null(strstr(text, "servers[0].port: 636 "));
	assert_non_null(strstr(text, "groups: [\"x, y\", z] "));
	assert_non_null(strstr(text, "words: [a, b] "));
	assert_non_null(strstr(text, "mode: enforce "));
	assert_non_null(strstr(text, "\nfile: "));
	assert_non_null(strstr(text, "# not set\n"));
	assert_non_null(strstr(text, "# default\n"));
	done(&p);
}

static void reload_knows_what_it_may(void **state)
{
	struct parsed a, b;
	parse(&a, "name: ab\nchannel: {interval: 5s, workers: 2}\nservers: [{host: a, tuning: {backup: true}}]\n");
	parse(&b, "name: ab\nchannel: {interval: 6s, workers: 2}\nservers: [{host: a}]\nwords: [c]\n");
	assert_null(config_not_reloadable(keys, &a.config, &b.config));
	done(&b);
	parse(&b, "name: cd\nfile: x\nchannel: {interval: 6s, workers: 3}\nservers: [{host: b}]\ngroups: [a]\n");
	AUTO_FREE char *text = config_not_reloadable(keys, &a.config, &b.config);
	assert_string_equal(text, "name\nfile\nchannel.workers\ngroups\nservers[0].host\n");
	done(&b);
	parse(&b, "name: ab\nchannel: {workers: 2}\n");
	AUTO_FREE char *count = config_not_reloadable(keys, &a.config, &b.config);
	assert_string_equal(count, "servers\n");
	done(&b);
	done(&a);
}

static void load_from(const char *path, mode_t mode, enum status expected, const char *finding)
{
	struct parsed p = { 0 };
	size_t size;
	if (mode != 0)
		assert_int_equal(chmod(path, mode), 0);
	p.status = config_load(path, keys, &p.config, &p.errors, &p.document);
	FILE *out = open_memstream(&p.text, &size);
	config_errors_print(&p.errors, out);
	fclose(out);
	assert_int_equal(p.status, expected);
	assert_non_null(strstr(p.text, finding));
	done(&p);
}

static void files_are_loaded(void **state)
{
	char path[] = "/tmp/test_config.XXXXXX";
	int fd = mkstemp(path);
	assert_int_equal(write(fd, "name: ab\nfile: x\n", 17), 17);
	close(fd);
	load_from(path, 0640, STATUS_OK, "");
	load_from(path, 0642, STATUS_LOCAL_CONFIG, "everybody can write it (mode 0642)");
	if (geteuid() == 0 && chown(path, 65534, 0) == 0)
		load_from(path, 0640, STATUS_LOCAL_CONFIG, "it belongs to the user with number 65534");
	unlink(path);
	load_from(path, 0, STATUS_LOCAL_CONFIG, "cannot be read: No such file");
	load_from("/tmp", 0, STATUS_LOCAL_CONFIG, "is not a regular file");
}

static void relative_names_have_a_folder(void **state)
{
	struct sample config = { 0 };
	struct config_errors errors = { 0 };
	AUTO_FREE char *here = getcwd(NULL, 0), *expected = NULL;
	assert_int_equal(config_parse("x.yaml", "name: ab\nfile: y", 16, keys, &config, &errors, NULL), STATUS_OK);
	assert_true(asprintf(&expected, "%s/y", here) > 0);
	assert_string_equal(config.file, expected);
	config_clear(keys, &config);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(everything_is_read), cmocka_unit_test(defaults_apply), cmocka_unit_test(each_fault_is_named), cmocka_unit_test(other_encodings_are_named), cmocka_unit_test(all_faults_are_reported),
		cmocka_unit_test(size_and_nesting_are_bounded), cmocka_unit_test(every_cut_is_judged), cmocka_unit_test(dump_says_where_from),
		cmocka_unit_test(reload_knows_what_it_may), cmocka_unit_test(files_are_loaded), cmocka_unit_test(relative_names_have_a_folder),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
