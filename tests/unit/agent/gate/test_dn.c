#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "agent/gate/scope.h"

struct pair { const char *dn, *base; };

static void below(void **state)
{
	static const struct pair pairs[] = {
		{ "CN=a,OU=People,DC=x", "OU=People,DC=x" },
		{ "OU=People,DC=x", "OU=People,DC=x" },
		{ "cn=A,ou=PEOPLE,dc=X", "OU=people,DC=x" },
		{ "CN=a , OU = People,  DC=x", "OU=People,DC=x " },
		{ "CN=a,OU=a\\,b,DC=x", "OU=a\\2cb,DC=x" },
		{ "CN=a,OU=a\\,b,DC=x", "OU=\"a,b\",DC=x" },
		{ "CN=a,OU=\\ b\\ ,DC=x", "OU=\\20b\\20,DC=x" },
		{ "CN=a,OU=x\\#\\=\\<,DC=x", "OU=x\\23\\3d\\3c,DC=x" },
		{ "CN=a,OU=p+L=q,DC=x", "l=Q + ou=P,DC=x" },
		{ "CN=a,OU=\xc3\x84rzte,DC=x", "OU=\xc3\xa4rzte,DC=x" },
		{ "CN=a,OU=\\C3\\84rzte,DC=x", "OU=\xc3\xa4rzte,DC=x" },
		{ "CN=a\\0ADEL:1,OU=People,DC=x", "OU=People,DC=x" },
		{ "CN=a=b,OU=People,DC=x", "OU=People,DC=x" },
		{ "CN=\"quoted \\\" here\",OU=People,DC=x", "OU=People,DC=x" },
	};
	for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
		if (!dn_is_below(pairs[i].dn, pairs[i].base))
			fail_msg("%s is not below %s", pairs[i].dn, pairs[i].base);
	}
}

static void not_below(void **state)
{
	static const struct pair pairs[] = {
		/* The texts end alike, the names do not. */
		{ "CN=a\\,OU=People,DC=x", "OU=People,DC=x" },
		{ "CN=a\\2COU=People,DC=x", "OU=People,DC=x" },
		{ "CN=\"a,OU=People\",DC=x", "OU=People,DC=x" },
		{ "CN=a+OU=People,DC=x", "OU=People,DC=x" },
		{ "CN=aOU=People,DC=x", "OU=People,DC=x" },
		{ "CN=a,XOU=People,DC=x", "OU=People,DC=x" },
		{ "CN=a,OU=People,DC=x", "CN=a,OU=People,DC=y" },
		{ "CN=a,OU=People,DC=xx", "OU=People,DC=x" },
		{ "CN=a,OU=People2,DC=x", "OU=People,DC=x" },
		{ "CN=a,OU=People,DC=x,DC=y", "OU=People,DC=x" },
		{ "DC=x", "OU=People,DC=x" },
		{ "OU=People,CN=a,DC=x", "OU=People,DC=x" },
		{ "CN=a,OU=p,DC=x", "OU=p+L=q,DC=x" },
		{ "CN=a,OU=p+L=q,DC=x", "OU=p,DC=x" },
		{ "CN=a,OU=\\ b,DC=x", "OU=b,DC=x" },
		{ "CN=a,CN=People,DC=x", "OU=People,DC=x" },
		{ "CN=a,OU=\xc3\x84rzte,DC=x", "OU=\xc3\xb6rzte,DC=x" },
	};
	for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
		if (!dn_valid(pairs[i].dn) || !dn_valid(pairs[i].base) || dn_is_below(pairs[i].dn, pairs[i].base))
			fail_msg("%s is below %s, or one of them is malformed", pairs[i].dn, pairs[i].base);
	}
}

static void malformed_is_below_nothing(void **state)
{
	static const char *const names[] = { "", " ", ",", "CN", "CN=", "CN=a,", ",CN=a", "CN=a,,DC=x", "=a", "CN=a\\", "CN=a\\4", "CN=a\\zz", "CN=\"a", "CN=\"a\"b", "CN=a;DC=x",
		"CN=a<b", "CN=a\"b", "2.5.4.11=People,DC=x", "CN=#0401", "CN=\xff,DC=x", "CN=\\ff,DC=x", "CN=a+,DC=x", "C N=a,DC=x", "CN=\"\",DC=x" };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		if (dn_valid(names[i]))
			fail_msg("'%s' was taken", names[i]);
		assert_false(dn_is_below(names[i], names[i]));
		assert_false(dn_is_below(names[i], "DC=x"));
		assert_false(dn_is_below("CN=a,DC=x", names[i]));
	}
	assert_false(dn_valid(NULL));
	assert_false(dn_is_below(NULL, "DC=x"));
	assert_false(dn_is_below("DC=x", NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(below), cmocka_unit_test(not_below), cmocka_unit_test(malformed_is_below_nothing) };
	return cmocka_run_group_tests_name("dn", tests, NULL, NULL);
}
