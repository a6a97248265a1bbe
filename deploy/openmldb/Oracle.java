import com._4paradigm.hybridse.base.BaseStatus;
import com._4paradigm.hybridse.codec.Row;
import com._4paradigm.hybridse.type.TypeOuterClass.ColumnDef;
import com._4paradigm.hybridse.type.TypeOuterClass.Database;
import com._4paradigm.hybridse.type.TypeOuterClass.IndexDef;
import com._4paradigm.hybridse.type.TypeOuterClass.TableDef;
import com._4paradigm.hybridse.type.TypeOuterClass.Type;
import com._4paradigm.hybridse.vm.CoreAPI;
import com._4paradigm.hybridse.vm.Engine;
import com._4paradigm.hybridse.vm.EngineOptions;
import com._4paradigm.hybridse.vm.RequestRunSession;
import com._4paradigm.hybridse.vm.SimpleCatalog;
import com._4paradigm.hybridse_interfaceJNI;
import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.gson.JsonPrimitive;
import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.math.BigDecimal;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * OpenMLDB's engine in request mode over tables in memory: a question per line of standard input, its answer per line
 * of standard output (oracle.py asks). The library's path is the only argument.
 *
 * <p>Each question brings its tables, whose rows come as a lookup has to meet them, newest first: the engine's own
 * in-memory catalogue keeps rows as they were inserted. Its insertRows takes a C++ vector, which no Java class wraps:
 * three pointers around one row stand for it (rows of 0.9.0 are ROW_BYTES wide).
 */
public final class Oracle {
  private static final long ROW_BYTES = 56;
  private static final int HEADER_BYTES = 6; // version, version, size
  private static final String MARK = "ORACLE ";
  private static sun.misc.Unsafe memory;

  private Oracle() {}

  public static void main(String[] args) throws Exception {
    java.lang.reflect.Field field = sun.misc.Unsafe.class.getDeclaredField("theUnsafe");
    field.setAccessible(true);
    memory = (sun.misc.Unsafe) field.get(null);
    System.load(args[0]);
    Engine.InitializeGlobalLLVM();
    PrintStream out = new PrintStream(new FileOutputStream(FileDescriptor.out), false, "UTF-8");
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    Gson gson = new GsonBuilder().serializeNulls().create();
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      out.println(MARK + gson.toJson(new Question(new JsonParser().parse(line).getAsJsonObject()).answer()));
      out.flush();
    }
  }

  /** A table of a question, and its rows in native memory. */
  private static final class Table {
    final String database;
    final TableDef definition;
    final List<Row> rows = new ArrayList<>();

    Table(JsonObject given) {
      database = given.get("database").getAsString();
      TableDef.Builder builder = TableDef.newBuilder().setName(given.get("name").getAsString()).setCatalog(database);
      for (JsonElement column : given.getAsJsonArray("columns")) {
        JsonArray pair = column.getAsJsonArray();
        builder.addColumns(
            ColumnDef.newBuilder().setName(pair.get(0).getAsString()).setType(type(pair.get(1).getAsString())));
      }
      for (JsonElement each : given.getAsJsonArray("indexes")) {
        JsonObject index = each.getAsJsonObject();
        IndexDef.Builder made = IndexDef.newBuilder().setName("index" + builder.getIndexesCount());
        for (JsonElement key : index.getAsJsonArray("keys")) {
          made.addFirstKeys(key.getAsString());
        }
        if (!index.get("ts").isJsonNull()) {
          made.setSecondKey(index.get("ts").getAsString());
        }
        builder.addIndexes(made);
      }
      definition = builder.build();
      for (JsonElement row : given.getAsJsonArray("rows")) {
        rows.add(encode(definition.getColumnsList(), row.getAsJsonArray()));
      }
    }

    void insertInto(SimpleCatalog catalog) {
      long vector = memory.allocateMemory(24);
      for (Row row : rows) {
        long at = Row.getCPtr(row);
        memory.putLong(vector, at);
        memory.putLong(vector + 8, at + ROW_BYTES);
        memory.putLong(vector + 16, at + ROW_BYTES);
        hybridse_interfaceJNI.hybridse_vm_SimpleCatalog_InsertRows(
            SimpleCatalog.getCPtr(catalog), catalog, database, definition.getName(), vector);
      }
      memory.freeMemory(vector);
    }
  }

  /** One question: tables, a query, request rows, and how often to ask them with the clock running. */
  private static final class Question {
    final String database;
    final String sql;
    final JsonArray requests;
    final int rounds;
    final List<Table> tables = new ArrayList<>();

    Question(JsonObject given) {
      database = given.get("database").getAsString();
      sql = given.get("sql").getAsString();
      requests = given.getAsJsonArray("requests");
      rounds = given.get("rounds").getAsInt();
      for (JsonElement table : given.getAsJsonArray("tables")) {
        tables.add(new Table(table.getAsJsonObject()));
      }
    }

    JsonObject answer() {
      JsonObject out = new JsonObject();
      SimpleCatalog catalog = new SimpleCatalog(true);
      Map<String, Database.Builder> databases = new LinkedHashMap<>();
      for (Table table : tables) {
        databases.computeIfAbsent(table.database, name -> Database.newBuilder().setName(name))
            .addTables(table.definition);
      }
      for (Database.Builder each : databases.values()) {
        catalog.AddDatabase(each.build());
      }
      long started = System.nanoTime();
      for (Table table : tables) {
        table.insertInto(catalog);
      }
      out.addProperty("insert_s", (System.nanoTime() - started) / 1e9);
      EngineOptions options = new EngineOptions();
      Engine engine = new Engine(catalog, options);
      RequestRunSession session = new RequestRunSession();
      BaseStatus status = new BaseStatus();
      started = System.nanoTime();
      if (engine.Get(sql, database, session, status)) {
        out.addProperty("compile_s", (System.nanoTime() - started) / 1e9);
        ask(session, out);
      } else {
        out.addProperty("refused", status.getMsg());
      }
      status.delete();
      session.delete();
      engine.delete();
      options.delete();
      for (Table table : tables) {
        table.rows.forEach(Row::delete);
      }
      catalog.delete();
      return out;
    }

    private void ask(RequestRunSession session, JsonObject out) {
      List<ColumnDef> schema = session.GetSchema();
      JsonArray columns = new JsonArray();
      for (ColumnDef column : schema) {
        JsonArray pair = new JsonArray();
        pair.add(new JsonPrimitive(column.getName()));
        pair.add(new JsonPrimitive(name(column.getType())));
        columns.add(pair);
      }
      out.add("schema", columns);
      List<ColumnDef> asked = session.GetRequestSchema();
      List<Row> given = new ArrayList<>();
      for (JsonElement request : requests) {
        given.add(encode(asked, request.getAsJsonArray()));
      }
      JsonArray answers = new JsonArray();
      for (Row row : given) {
        Row answer = new Row();
        boolean answered = session.Run(row, answer) == 0 && answer.size() > 0;
        answers.add(answered ? decode(schema, answer) : JsonNull.INSTANCE);
        answer.delete();
      }
      out.add("rows", answers);
      if (rounds > 0) {
        time(session, given, out);
      }
      given.forEach(Row::delete);
    }

    private void time(RequestRunSession session, List<Row> given, JsonObject out) {
      double[] spent = new double[rounds * given.size()];
      for (int n = 0; n < spent.length; n++) {
        Row answer = new Row();
        long started = System.nanoTime();
        session.Run(given.get(n % given.size()), answer);
        spent[n] = (System.nanoTime() - started) / 1e9;
        answer.delete();
      }
      Arrays.sort(spent);
      out.addProperty("request_p50_s", spent[spent.length / 2]);
      out.addProperty("request_p99_s", spent[(int) (spent.length * 0.99)]);
      out.addProperty("request_mean_s", Arrays.stream(spent).average().orElse(0));
    }
  }

  // OpenMLDB's row: header, a bit per NULL, fields of fixed width, ends of strings, strings.

  private static Type type(String name) {
    switch (name) {
      case "bool": return Type.kBool;
      case "smallint": return Type.kInt16;
      case "int": return Type.kInt32;
      case "bigint": return Type.kInt64;
      case "float": return Type.kFloat;
      case "double": return Type.kDouble;
      case "string": return Type.kVarchar;
      case "date": return Type.kDate;
      case "timestamp": return Type.kTimestamp;
      default: throw new IllegalArgumentException("no type " + name);
    }
  }

  private static String name(Type type) {
    switch (type) {
      case kBool: return "bool";
      case kInt16: return "smallint";
      case kInt32: return "int";
      case kInt64: return "bigint";
      case kFloat: return "float";
      case kDouble: return "double";
      case kVarchar: return "string";
      case kDate: return "date";
      case kTimestamp: return "timestamp";
      default: return type.toString();
    }
  }

  private static int width(Type type) {
    switch (type) {
      case kBool: return 1;
      case kInt16: return 2;
      case kInt32: case kFloat: case kDate: return 4;
      case kVarchar: return 0;
      default: return 8;
    }
  }

  private static int addressBytes(int size) {
    return size <= 0xFF ? 1 : size <= 0xFFFF ? 2 : size <= 0xFFFFFF ? 3 : 4;
  }

  private static Row encode(List<ColumnDef> columns, JsonArray values) {
    int fixed = HEADER_BYTES + (columns.size() + 7) / 8;
    int at = fixed;
    int strings = 0;
    int textBytes = 0;
    byte[][] texts = new byte[columns.size()][];
    for (int n = 0; n < texts.length; n++) {
      fixed += width(columns.get(n).getType());
      if (columns.get(n).getType() == Type.kVarchar) {
        strings++;
        texts[n] = values.get(n).isJsonNull() ? new byte[0] : values.get(n).getAsString().getBytes(StandardCharsets.UTF_8);
        textBytes += texts[n].length;
      }
    }
    int address = 1;
    while (addressBytes(fixed + address * strings + textBytes) > address) {
      address++;
    }
    int size = fixed + address * strings + textBytes;
    ByteBuffer bytes = ByteBuffer.allocate(size).order(ByteOrder.LITTLE_ENDIAN);
    bytes.put(0, (byte) 1).put(1, (byte) 1).putInt(2, size);
    int slot = fixed;
    int end = fixed + address * strings;
    for (int n = 0; n < texts.length; n++) {
      JsonElement value = values.get(n);
      Type type = columns.get(n).getType();
      if (value.isJsonNull()) {
        int place = HEADER_BYTES + n / 8;
        bytes.put(place, (byte) (bytes.get(place) | 1 << n % 8));
      } else if (type != Type.kVarchar) {
        put(bytes, at, type, value);
      }
      if (type == Type.kVarchar) {
        for (int k = 0; k < address; k++) {
          bytes.put(slot++, (byte) (end >>> 8 * k));
        }
        for (byte each : texts[n]) {
          bytes.put(end++, each);
        }
      }
      at += width(type);
    }
    Row row = CoreAPI.NewRow(size);
    long pointer = CoreAPI.GetRowBuf(row, 0);
    memory.copyMemory(bytes.array(), sun.misc.Unsafe.ARRAY_BYTE_BASE_OFFSET, null, pointer, size);
    return row;
  }

  private static void put(ByteBuffer bytes, int at, Type type, JsonElement value) {
    switch (type) {
      case kBool: bytes.put(at, (byte) (value.getAsBoolean() ? 1 : 0)); break;
      case kInt16: bytes.putShort(at, value.getAsShort()); break;
      case kInt32: bytes.putInt(at, value.getAsInt()); break;
      case kFloat: bytes.putFloat(at, Float.parseFloat(value.getAsString())); break;
      case kDouble: bytes.putDouble(at, Double.parseDouble(value.getAsString())); break;
      case kDate:
        String[] parts = value.getAsString().split("-");
        int year = Integer.parseInt(parts[0]) - 1900;
        bytes.putInt(at, year << 16 | Integer.parseInt(parts[1]) - 1 << 8 | Integer.parseInt(parts[2]));
        break;
      default: bytes.putLong(at, value.getAsLong());
    }
  }

  private static JsonArray decode(List<ColumnDef> columns, Row row) {
    byte[] raw = new byte[row.size()];
    memory.copyMemory(null, CoreAPI.GetRowBuf(row, 0), raw, sun.misc.Unsafe.ARRAY_BYTE_BASE_OFFSET, raw.length);
    ByteBuffer bytes = ByteBuffer.wrap(raw).order(ByteOrder.LITTLE_ENDIAN);
    int at = HEADER_BYTES + (columns.size() + 7) / 8;
    int slot = at;
    int strings = 0;
    for (ColumnDef column : columns) {
      slot += width(column.getType());
      strings += column.getType() == Type.kVarchar ? 1 : 0;
    }
    int address = addressBytes(raw.length);
    JsonArray out = new JsonArray();
    for (int n = 0; n < columns.size(); n++) {
      Type type = columns.get(n).getType();
      boolean isNull = (raw[HEADER_BYTES + n / 8] >> n % 8 & 1) != 0;
      if (type == Type.kVarchar) {
        strings--;
        int from = number(raw, slot, address);
        int to = strings > 0 ? number(raw, slot + address, address) : raw.length;
        slot += address;
        out.add(isNull ? JsonNull.INSTANCE : new JsonPrimitive(new String(raw, from, to - from, StandardCharsets.UTF_8)));
      } else {
        out.add(isNull ? JsonNull.INSTANCE : value(bytes, at, type));
      }
      at += width(type);
    }
    return out;
  }

  private static int number(byte[] raw, int at, int bytes) {
    int value = 0;
    for (int n = 0; n < bytes; n++) {
      value |= (raw[at + n] & 255) << 8 * n;
    }
    return value;
  }

  private static JsonPrimitive value(ByteBuffer bytes, int at, Type type) {
    switch (type) {
      case kBool: return new JsonPrimitive(bytes.get(at) != 0);
      case kInt16: return new JsonPrimitive(bytes.getShort(at));
      case kInt32: return new JsonPrimitive(bytes.getInt(at));
      case kFloat: return real(bytes.getFloat(at));
      case kDouble: return real(bytes.getDouble(at));
      case kDate:
        int date = bytes.getInt(at);
        int year = (date >> 16) + 1900;
        return new JsonPrimitive(String.format("%04d-%02d-%02d", year, (date >> 8 & 255) + 1, date & 255));
      default: return new JsonPrimitive(bytes.getLong(at));
    }
  }

  /** Every digit of a number, as JSON; what JSON cannot say as text. */
  private static JsonPrimitive real(double number) {
    if (Double.isNaN(number) || Double.isInfinite(number)) {
      return new JsonPrimitive(Double.isNaN(number) ? "NaN" : number > 0 ? "Infinity" : "-Infinity");
    }
    return number == 0 && 1 / number < 0 ? new JsonPrimitive("-0.0") : new JsonPrimitive(new BigDecimal(number));
  }
}
