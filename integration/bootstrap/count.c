/* A Lua function in a query of SQLite: how many of ten rows are odd. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <sqlite3.h>
#include <stdio.h>

static void odd(sqlite3_context *context, int count, sqlite3_value **values)
{
    lua_State *lua = sqlite3_user_data(context);

    (void)count;
    lua_getglobal(lua, "odd");
    lua_pushinteger(lua, sqlite3_value_int(values[0]));
    if (lua_pcall(lua, 1, 1, 0) != LUA_OK) {
        sqlite3_result_error(context, lua_tostring(lua, -1), -1);
        return;
    }
    sqlite3_result_int(context, lua_toboolean(lua, -1));
    lua_pop(lua, 1);
}

int main(void)
{
    const char *rows = "with recursive n(i) as (values (1) union all select i + 1 from n where i < 10)"
                       " select count(*) from n where odd(i)";
    lua_State *lua = luaL_newstate();
    sqlite3_stmt *query;
    sqlite3 *database;

    luaL_openlibs(lua);
    if (luaL_dostring(lua, "function odd(i) return i % 2 == 1 end")
        || sqlite3_open(":memory:", &database) != SQLITE_OK
        || sqlite3_create_function(database, "odd", 1, SQLITE_UTF8, lua, odd, 0, 0) != SQLITE_OK
        || sqlite3_prepare_v2(database, rows, -1, &query, 0) != SQLITE_OK
        || sqlite3_step(query) != SQLITE_ROW)
        return 1;
    printf("odd: %d\n", sqlite3_column_int(query, 0));
    return 0;
}
