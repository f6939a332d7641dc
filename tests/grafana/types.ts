// What a dashboard of ours is made of, in the types that Grafana publishes. check.mjs makes a JSON schema of them.
import type {
  Dashboard as AnyDashboard,
  DataSourceRef,
  FieldConfig,
  FieldConfigSource,
  Panel,
  RowPanel,
} from "@grafana/schema/dist/esm/raw/dashboard/x/dashboard_types.gen";
import type { Options as StatOptions } from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type {
  FieldConfig as TimeSeriesField,
  Options as TimeSeriesOptions,
} from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

/** A query to Prometheus; the package has no type of it. */
interface Query {
  refId: string;
  datasource: DataSourceRef;
  expr: string;
  legendFormat: string;
  instant?: boolean;
}

interface Field<Custom> extends Omit<FieldConfig, "custom"> {
  custom?: Partial<Custom>;
}

interface Fields<Custom> extends Omit<FieldConfigSource, "defaults"> {
  defaults: Field<Custom>;
}

/** A panel of one kind: what it may be told is known. */
interface PanelOf<Kind, Options, Custom> extends Omit<Panel, "type" | "options" | "targets" | "fieldConfig"> {
  type: Kind;
  title: string;
  description: string;
  options: Partial<Options>;
  targets: Query[];
  fieldConfig: Fields<Custom>;
}

export interface Dashboard extends Omit<AnyDashboard, "panels"> {
  panels: { type: "row" | "stat" | "timeseries" }[];
}

export type row = RowPanel;
export type stat = PanelOf<"stat", StatOptions, object>;
export type timeseries = PanelOf<"timeseries", TimeSeriesOptions, TimeSeriesField>;
